"""Figures of a model: affinity, drift, FLOPs, peak speed."""

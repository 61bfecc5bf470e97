"""Heads that are trained on frozen features, and neighbours, which need no training."""

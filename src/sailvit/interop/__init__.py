"""Checkpoints of other layouts: read as our parts, and AIMv2 towers written in either of two."""

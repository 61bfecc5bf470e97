"""Layouts of multimodal checkpoints: each says whether a config is its own, and plans the parts."""

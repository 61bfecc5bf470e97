"""Multimodal checkpoints read tensor by tensor, and their parts planned from names alone."""

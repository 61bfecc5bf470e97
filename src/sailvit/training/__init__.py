"""Stages: one loop, objectives, optimizer, proof, hooks."""

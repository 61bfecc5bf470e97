"""Stages: one loop, objectives, optimizer, proof, callbacks."""

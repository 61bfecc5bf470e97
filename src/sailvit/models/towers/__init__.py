"""Towers: any vision model as tiles to patch features."""

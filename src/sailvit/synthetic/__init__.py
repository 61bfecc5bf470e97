"""Drawn data: the demo world, charts and documents."""

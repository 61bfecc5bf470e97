"""Rows of public layouts as records: keys, turns, images, and what is refused by name."""

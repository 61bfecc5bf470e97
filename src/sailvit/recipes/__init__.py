"""Shipped recipes and the loader that reads any recipe."""

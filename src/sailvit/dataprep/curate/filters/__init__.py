"""Filters of records, by their text and their images."""

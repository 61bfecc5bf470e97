"""Process groups as functions that also work with one process."""

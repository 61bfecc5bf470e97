"""Layouts of other programs, in and out; each way out is proved by reading it back."""

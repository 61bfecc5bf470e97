"""`sailvit data`: prepare, check, view and curate training data."""

"""`sailvit data`: prepare, check, look at and curate training data."""

"""What is done with data before training: prepare, curate, describe, annotate, inspect."""

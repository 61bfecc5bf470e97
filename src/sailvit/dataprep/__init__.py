"""Getting data ready before training: prepare, curate, describe, annotate, inspect."""

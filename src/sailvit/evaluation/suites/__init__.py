"""Sets of questions: their tables, prompts, predictions and files."""

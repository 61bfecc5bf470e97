"""Parts from folders and hub ids, and back to folders."""

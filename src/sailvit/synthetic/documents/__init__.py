"""Pages of text drawn by code, with exact transcriptions and questions about what is written."""

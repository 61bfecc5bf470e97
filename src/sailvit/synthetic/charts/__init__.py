"""Charts drawn by code, with captions and questions whose answers are exact."""

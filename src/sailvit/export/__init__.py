"""Parts as Hugging Face folders, proved by reloading them."""

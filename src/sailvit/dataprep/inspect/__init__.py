"""Shows packs as the model sees them."""

"""Looking at packs as the model sees them."""

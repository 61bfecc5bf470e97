"""Our models in other people's evaluation kits, which stay as they are."""

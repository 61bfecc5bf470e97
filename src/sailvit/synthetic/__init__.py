"""Data drawn by code: the demo's world, charts and documents."""

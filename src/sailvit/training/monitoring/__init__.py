"""What a run measures beside its losses."""

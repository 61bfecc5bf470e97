"""One stage of a run: the loop, its state, its objectives, and the callback interface."""

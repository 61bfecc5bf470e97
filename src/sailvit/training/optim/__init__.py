"""The optimizer, its schedules, and the search for the learning rate."""

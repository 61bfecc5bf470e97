"""What Python calls, and the command line too: train, load a run's model, load a tower."""

"""What can be wrong with a checkpoint or model, told before or while it is loaded."""

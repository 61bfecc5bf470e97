"""What every command may need: options that several take, and a bar for long work."""

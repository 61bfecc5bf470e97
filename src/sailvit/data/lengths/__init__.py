"""What every record costs in a pack; measured once, so that planning reads no record."""

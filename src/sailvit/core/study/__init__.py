"""Studies: what they are, which cells they have, and the folder that their results are in."""

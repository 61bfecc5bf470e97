"""Side effects of training: proof, recovery, rate search, monitoring."""

"""What a tower is worth by itself: probes of its frozen features, base against refined."""

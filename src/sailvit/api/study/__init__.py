"""Studies: cells of trainings that share what they can, run side by side, and what comes of them."""

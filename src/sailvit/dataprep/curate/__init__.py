"""What a data set holds, and which of its records are worth training on."""

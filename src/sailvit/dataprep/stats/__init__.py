"""Statistics and sample pictures of a data set."""

"""Choosing the records of a data set that are worth training on."""

"""A record and what can be found out about it: sizes, hashes, words."""

"""A record's computed properties: sizes, hashes, words."""

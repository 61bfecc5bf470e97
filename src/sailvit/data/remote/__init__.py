"""Shards that lie elsewhere: fetched whole into a bounded folder on this machine."""

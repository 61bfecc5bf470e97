"""Shards and their index, which says what every record costs in a pack and where it lies, so
that planning reads no record.
"""

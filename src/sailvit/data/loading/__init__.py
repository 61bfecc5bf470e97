"""Reading: planned packs as batches, in worker processes, with bad records left out and
accounted for.
"""

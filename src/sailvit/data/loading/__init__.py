"""Loading: worker processes read planned packs as batches; bad records are left out and
counted.
"""

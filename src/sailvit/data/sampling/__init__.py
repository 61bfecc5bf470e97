"""The plan: which records make which pack of which step, as a function of the seed and of the
records' costs.
"""

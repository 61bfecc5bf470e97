"""Contracts that every other layer shares: recipes, records, batches, run folders, errors and
seeds.
"""

"""Objectives: loss terms that are sums over units."""

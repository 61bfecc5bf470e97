"""The demo's world: small drawn pictures of which every fact is known, and questions about
them.
"""

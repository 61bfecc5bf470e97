"""The embedded demo world: small procedural pictures whose every fact is known, and questions
about them.
"""

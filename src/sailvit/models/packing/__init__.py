"""How the samples of a pack are kept apart in the language: proved on the model at hand, never
assumed.
"""

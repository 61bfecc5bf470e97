"""The closed vocabulary of the world: all words of its questions, answers and descriptions."""

from __future__ import annotations

COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
"""Colours of things, bars and ink; so far apart in RGB that small tints confuse no two."""
SHAPES = ("circle", "square", "triangle", "cross")
"""Outlines of things."""
SIZES = ("small", "large")
"""Sizes of things; large things are about twice as wide as small ones."""
CELLS = ("top left", "top right", "bottom left", "bottom right")
"""Names of the 2x2 cells, in reading order."""
DIGITS = tuple("0123456789")
"""Numbers are written digit by digit, each its own word: 12 is `1 2`."""
LETTERS = tuple("acehkltuxy")
"""Letters of writings: those whose capitals are most different."""
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
"""Names of several things of one shape."""
COMMA = ","
"""Separates the phrases of a description."""

_GRAMMAR = """
    ? , above at bar bars below bottom colour describe digits everything how is it large left letters many much minus
    no of plus right shape shapes shortest tall tallest the there are top what where which written yes
"""


def vocabulary() -> tuple[str, ...]:
    """Every word of the world, once each, in a fixed order."""
    words = (
        *DIGITS,
        *LETTERS,
        *COLOURS,
        *SHAPES,
        *SIZES,
        *PLURALS.values(),
        *sorted(_GRAMMAR.split()),
    )
    return tuple(dict.fromkeys(words))

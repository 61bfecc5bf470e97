"""A page being set: text goes down from the top, wrapped to its column, and stops where the
page ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from sailvit.synthetic.documents.fonts import font

Align = Literal["left", "centre", "right"]


@dataclass(frozen=True)
class Span:
    """A piece of text in one place."""

    text: str
    """What is written."""
    x: int
    """Left end, in pixels."""
    y: int
    """Upper end of its line, in pixels."""
    face: str
    """The font's file."""
    size: int
    """The font's size, in pixels."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, upper, right and lower end of the ink."""
        left, upper, right, lower = font(self.face, self.size).getbbox(self.text)
        return self.x + left, self.y + upper, self.x + right, self.y + lower


@dataclass(frozen=True)
class Page:
    """Everything that is written on a page."""

    size: tuple[int, int]
    """Width and height, in pixels."""
    spans: tuple[Span, ...]
    """Where the text stands."""
    rules: tuple[tuple[int, int, int, int], ...]
    """Straight lines, by their ends."""
    rows: tuple[str, ...]
    """The text in reading order, one entry per line."""
    fields: tuple[tuple[str, str], ...]
    """Questions about it, with their only answers."""
    order: str = "from top to bottom"
    """How the rows follow each other."""
    numbered: bool = False
    """Whether a line can be asked for by its number."""


@dataclass
class Sheet:
    """A page while it is set."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    margin: int
    """Pixels that stay empty on all sides."""
    face: str
    """The font's file."""
    size: int
    """Size of plain text, in pixels."""
    leading: float
    """Height of a line, in units of its type's height."""
    y: int = field(init=False)
    """Where the next line begins."""
    x: int = field(init=False)
    """Left end of the column."""
    column: int = field(init=False)
    """Width of the column."""
    spans: list[Span] = field(default_factory=list)
    """What stands on the page so far."""
    rules: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Straight lines so far."""
    rows: list[str] = field(default_factory=list)
    """The text so far, in reading order."""

    def __post_init__(self) -> None:
        self.x, self.y, self.column = self.margin, self.margin, self.width - 2 * self.margin

    def step(self, size: int | None = None) -> int:
        """Height of a line of type of `size`, in pixels."""
        return round(sum(font(self.face, size or self.size).getmetrics()) * self.leading)

    def fits(self, size: int | None = None) -> bool:
        """Whether another line has room."""
        return self.y + self.step(size) <= self.height - self.margin

    def gap(self, share: float = 0.5) -> None:
        """Leave a part of a line empty."""
        self.y += round(share * self.step())

    def put(
        self,
        text: str,
        *,
        size: int | None = None,
        align: Align = "left",
        mark: str = "",
        indent: int = 0,
    ) -> int:
        """Set a text in as many lines as it needs, as far as the page goes; returns how many
        lines were set.

        `mark` stands in the indentation of the first line. A last sentence may be cut at the
        end of a line.
        """
        size, before = size or self.size, len(self.rows)
        for index, line in enumerate(wrap(text, self.face, size, self.column - indent)):
            if not self.fits(size):
                break
            shift = {"left": 0.0, "centre": 0.5, "right": 1.0}[align]
            free = self.column - indent - _length(line, self.face, size)
            self.spans.append(
                Span(line, self.x + indent + int(free * shift), self.y, self.face, size)
            )
            marked = mark if index == 0 else ""
            if marked:
                self.spans.append(Span(marked, self.x, self.y, self.face, size))
            self.rows.append(f"{marked} {line}".strip())
            self.y += self.step(size)
        return len(self.rows) - before

    def cells(
        self,
        texts: list[str],
        lefts: list[int],
        *,
        size: int | None = None,
        text: str | None = None,
    ) -> None:
        """Set one line of several pieces at these places, counted from the column's left end;
        as one row `text`.
        """
        size = size or self.size
        self.spans += [
            Span(piece, self.x + left, self.y, self.face, size)
            for piece, left in zip(texts, lefts, strict=True)
            if piece
        ]
        self.rows.append(" | ".join(texts) if text is None else text)
        self.y += self.step(size)

    def rule(self) -> None:
        """Draw a line across the column."""
        self.rules.append((self.x, self.y, self.x + self.column, self.y))
        self.gap(0.3)

    def trim(self) -> None:
        """Cut off the paper below the text, but for a margin."""
        self.height = min(self.height, self.y + self.margin)

    def length(self, text: str) -> int:
        """Width of a text in plain type, in pixels."""
        return round(_length(text, self.face, self.size))

    def page(
        self,
        *,
        fields: list[tuple[str, str]],
        order: str = "from top to bottom",
        numbered: bool = False,
    ) -> Page:
        """The finished page."""
        return Page(
            size=(self.width, self.height),
            spans=tuple(self.spans),
            rules=tuple(self.rules),
            rows=tuple(self.rows),
            fields=tuple(fields),
            order=order,
            numbered=numbered,
        )


def wrap(text: str, face: str, size: int, width: float) -> list[str]:
    """The lines of a text in a column of `width` pixels; a word that is wider stands alone, cut
    to what fits.
    """
    lines: list[list[str]] = []
    taken, space = 0.0, _length(" ", face, size)
    for word in text.split():
        length = _length(word, face, size)
        if lines and taken + space + length <= width:
            lines[-1].append(word)
            taken += space + length
            continue
        fitting = (
            end for end in range(len(word), 1, -1) if _length(word[:end], face, size) <= width
        )
        lines.append([word[: next(fitting, 1)]])
        taken = length
    return [" ".join(line) for line in lines]


@lru_cache(maxsize=1 << 14)
def _length(text: str, face: str, size: int) -> float:
    """Width in pixels: of the ink where it reaches beyond the last letter's own width, as in
    italics.

    Remembered, as most words come again, and asking FreeType is most of what a page costs.
    """
    made = font(face, size)
    return max(made.getlength(text), made.getbbox(text)[2])

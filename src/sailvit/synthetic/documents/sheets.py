"""Writes the text of a page from top to bottom, wrapped to its column, while it fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from sailvit.synthetic.documents.fonts import font

Align = Literal["left", "centre", "right"]


@dataclass(frozen=True)
class Span:
    """A piece of text at one place."""

    text: str
    """The text."""
    x: int
    """Left end, in pixels."""
    y: int
    """Upper end of its line, in pixels."""
    face: str
    """Path of the font's file."""
    size: int
    """The font's size, in pixels."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, upper, right and lower end of the ink, in pixels."""
        left, upper, right, lower = font(self.face, self.size).getbbox(self.text)
        return self.x + left, self.y + upper, self.x + right, self.y + lower


@dataclass(frozen=True)
class Page:
    """A finished page: its text, and the questions about it."""

    size: tuple[int, int]
    """Width and height, in pixels."""
    spans: tuple[Span, ...]
    """All text, with its places."""
    rules: tuple[tuple[int, int, int, int], ...]
    """Straight lines, as x and y of both ends."""
    rows: tuple[str, ...]
    """The text in reading order, one entry per line."""
    fields: tuple[tuple[str, str], ...]
    """Questions about the page, each with its only answer."""
    order: str = "from top to bottom"
    """The reading order in words, for the request of a transcription."""
    numbered: bool = False
    """Whether questions may name a line by its number."""


@dataclass
class Sheet:
    """A page that is being written."""

    width: int
    """Width of the page, in pixels."""
    height: int
    """Height of the page, in pixels."""
    margin: int
    """Width of the empty margin on all sides, in pixels."""
    face: str
    """Path of the font's file."""
    size: int
    """Font size of plain text, in pixels."""
    leading: float
    """Distance of lines, in units of the font's height."""
    y: int = field(init=False)
    """Upper end of the next line."""
    x: int = field(init=False)
    """Left end of the column."""
    column: int = field(init=False)
    """Width of the column."""
    spans: list[Span] = field(default_factory=list)
    """Pieces of text so far."""
    rules: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Straight lines so far."""
    rows: list[str] = field(default_factory=list)
    """The text so far, in reading order."""

    def __post_init__(self) -> None:
        self.x, self.y, self.column = self.margin, self.margin, self.width - 2 * self.margin

    def step(self, size: int | None = None) -> int:
        """Height of a line of text of font size `size`, in pixels; None: of plain text."""
        return round(sum(font(self.face, size or self.size).getmetrics()) * self.leading)

    def fits(self, size: int | None = None) -> bool:
        """Whether another line fits on the page."""
        return self.y + self.step(size) <= self.height - self.margin

    def gap(self, share: float = 0.5) -> None:
        """Leave a share of a line's height empty."""
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
        """Write a text in as many lines as it needs, as far as the page goes; returns how many
        lines were written.

        `mark` is written in the indentation of the first line. At the end of the page a text
        may be cut after any line.
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
        """Write one line of several pieces; `lefts` are their distances from the column's left
        end, and `text` is the row that a transcription has for it.
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
        """End the page a margin below its text."""
        self.height = min(self.height, self.y + self.margin)

    def length(self, text: str) -> int:
        """Width of plain text, in pixels."""
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
    """The lines of a text in a column of `width` pixels; a wider word gets a line of its own
    and is cut to fit.
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
    """Width of a text in pixels."""
    # Cached, as most words come again, and measuring them takes most of a page's time. The ink
    # of italics reaches beyond the width of the last letter.
    made = font(face, size)
    return max(made.getlength(text), made.getbbox(text)[2])

"""Pages as a source of records: transcriptions, and questions about single fields and lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from sailvit.core.config import Config
from sailvit.core.errors import DataError
from sailvit.core.recipe import Count, Positive, Share, SourceConfig
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.synthetic.documents.degradation import PageDrawing, some_degradation
from sailvit.synthetic.documents.fonts import faces_for, faces_in, shipped_faces
from sailvit.synthetic.documents.layouts import LAYOUTS
from sailvit.synthetic.documents.sheets import Page
from sailvit.synthetic.documents.vocabulary import Writer
from sailvit.synthetic.drawn_source import DrawnSource, drawn_options, named_shares

_ORDINALS = (
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
)


class DocumentsOptions(Config):
    """Options of drawn pages."""

    size: Count
    """Number of records."""
    seed: int = 0
    """Seed of all random choices."""
    kinds: Annotated[dict[str, Positive], Field(min_length=1)] = dict.fromkeys(LAYOUTS, 1.0)
    """Shares of the kinds of pages; a single name or a list of names gives equal shares."""
    transcriptions: Share = 0.5
    """Share of the records that ask for all text; the others ask about parts of it, unless the
    page has no parts to ask about."""
    questions: Count = 3
    """Most questions about one page."""
    worn: Share = 0.7
    """Share of the pages that are slanted, blurred, grainy and compressed."""
    fonts: str | None = None
    """Folder of .ttf and .otf files to use instead of those that come with Pillow and
    matplotlib."""
    text: str | None = None
    """UTF-8 file whose lines fill the paragraphs, in fonts that have all its characters; None:
    sentences are generated."""

    @field_validator("kinds", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named_shares(value, LAYOUTS, "there is no kind of page")


class DocumentsSource(DrawnSource):
    """Drawn pages with transcriptions or questions."""

    noun = "pages"

    def __init__(self, options: DocumentsOptions, folder: Path = Path()) -> None:
        self.options = options
        super().__init__(options.size, options.seed, options.kinds, "pages")
        self._faces = faces_in(str(folder / options.fonts)) if options.fonts else shipped_faces()
        self._lines = _read_lines(folder / options.text) if options.text else ()
        if self._lines:
            # A font draws boxes for characters that it lacks, whose transcription cannot be read.
            self._faces = faces_for("".join(self._lines), self._faces)

    def record(self, position: int, kind: str, rng: np.random.Generator) -> Record:
        """A page with its transcription, or with questions about parts of it."""
        face = self._faces[int(rng.integers(len(self._faces)))]
        page = LAYOUTS[kind](rng, Writer(rng, self._lines), face)
        # The smallest type of a page is lost first, so it limits the blur of all.
        smallest = min(span.size for span in page.spans)
        degradation = some_degradation(rng, smallest, worn=bool(rng.random() < self.options.worn))
        asked = _some(
            rng,
            [*page.fields, *_about_lines(page)],
            int(rng.integers(1, self.options.questions + 1)),
        )
        if not asked or rng.random() < self.options.transcriptions:
            asked = [transcription(page)]
        return _record(f"{kind}-{position}", asked, PageDrawing(page, degradation))

    @property
    def determined_by(self) -> list[Any]:
        """The options, the names of the fonts, and the text."""
        # Of fonts the names and of the text its lines: paths differ between machines.
        values = self.options.model_dump(exclude={"fonts", "text"})
        return [values, [Path(face).name for face in self._faces], self._lines]


def open_documents(config: SourceConfig, folder: Path) -> DocumentsSource:
    """The pages that `config.options` describes; relative `fonts` and `text` start at `folder`."""
    return DocumentsSource(drawn_options(DocumentsOptions, config.options, "documents"), folder)


def transcription(page: Page) -> tuple[str, str]:
    """The request for all text of a page, with its answer."""
    return f"Write down all text on the page, line by line, {page.order}.", "\n".join(page.rows)


def _about_lines(page: Page) -> list[tuple[str, str]]:
    rows = zip(_ORDINALS, page.rows, strict=False) if page.numbered else ()
    return [(f"What does the {ordinal} line from the top say?", row) for ordinal, row in rows]


def _some(
    rng: np.random.Generator, every: list[tuple[str, str]], count: int
) -> list[tuple[str, str]]:
    return [every[index] for index in rng.permutation(len(every))[:count].tolist()]


def _record(name: str, asked: list[tuple[str, str]], drawing: PageDrawing) -> Record:
    turns: list[Turn] = []
    for question, answer in asked:
        shown = "" if turns else f"{IMAGE_MARK}\n"
        turns += [Turn("user", shown + question), Turn("assistant", answer)]
    return Record(name, tuple(turns), (drawing,), "ocr")


def _read_lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as UTF-8 text ({error}); expected lines of plain text"
        ) from error
    # A mark in the text would ask for a second image.
    lines = tuple(
        " ".join(line.split()) for line in text.replace(IMAGE_MARK, "").splitlines() if line.strip()
    )
    if not lines:
        raise DataError(f"{path} has no line with text; expected at least one")
    return lines

"""The mean sample of a stage: read from its sources where they exist, otherwise assumed, and
marked as assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sailvit.core.batch import IGNORED
from sailvit.core.errors import DataError
from sailvit.core.formatting import counted
from sailvit.core.layout import VisualLayout
from sailvit.core.records import Record, Source, Turn
from sailvit.data.processing.images import tile_count
from sailvit.data.processing.processor import Processor
from sailvit.models.loading.build import MetaModel
from sailvit.preflight.random_source import SHOWN

READ = 48
"""Records read per source, evenly spaced; with that many the mean length is right to a few
percent."""
ASSUMED_TEXT = 256
"""Text tokens of a sample that cannot be read, half of them answers."""
CHARACTERS = 4.0
"""Characters per token, assumed where the language's tokenizer is not on this machine: English
text with a vocabulary of 150,000."""


@dataclass(frozen=True)
class MeanSample:
    """Means over samples; what FLOPs and step counts depend on."""

    tiles: float
    """Tiles."""
    tokens: float
    """Tokens, cut to the pack."""
    squares: float
    """Squared length in tokens, which the cost of attention grows with; its mean is more than
    the square of the mean length."""
    answers: float
    """Tokens with loss."""
    captions: float
    """Share of samples that are captions of one image, so usable by the contrastive
    objective."""
    basis: str
    """Where the figures come from, in words."""
    pictures: float | None = None
    """Pictures that the tower sees by themselves; None: every tile is one."""
    picture_squares: float | None = None
    """Sum over pictures of their squared number of tiles; None: as many as tiles."""


def assumed_sample(model: MetaModel, sequence: int) -> MeanSample:
    """One image of half the allowed tiles and its thumbnail, and some text."""
    layout = model.layout
    if layout.native is not None:
        return _assumed_native(layout, sequence)
    tiles = 1.0 if layout.max_tiles == 1 else (layout.max_tiles + 1) // 2 + 1.0 + layout.thumbnail
    tokens = min(tiles * layout.tokens_per_tile + ASSUMED_TEXT, sequence)
    basis = f"assumed: one image of {tiles:.0f} tiles and {ASSUMED_TEXT} text tokens, half of them answers"
    return MeanSample(tiles, tokens, tokens**2, ASSUMED_TEXT / 2, 0.0, basis)


def _assumed_native(layout: VisualLayout, sequence: int) -> MeanSample:
    """One image of common size, and some text."""
    tiles = float(min(SHOWN, layout.most_tiles))
    tokens = min(tiles + ASSUMED_TEXT, sequence)
    basis = f"assumed: one image of {tiles:.0f} visual tokens and {ASSUMED_TEXT} text tokens, half of them answers"
    return MeanSample(tiles, tokens, tokens**2, ASSUMED_TEXT / 2, 0.0, basis, 1.0, tiles**2)


def measured_sample(source: Source, model: MetaModel, sequence: int) -> MeanSample:
    """The mean of records spread over a source; DataError when none of them can be read."""
    count = min(READ, len(source))
    measure = _measurer(model, sequence)
    rows, failure = [], None
    for place in range(count):
        try:
            # Spread out, as the beginning of a file is often all of one kind.
            rows.append(measure(source[place * len(source) // count]))
        except DataError as error:
            failure = error
    if not rows:
        raise failure or DataError("it holds no records; point it at a file that has some")
    tokens = [row[1] for row in rows]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    how = (
        "by the language's tokenizer"
        if model.tokenizer
        else f"taken as one per {CHARACTERS:.0f} characters, as the tokenizer is not here"
    )
    return MeanSample(
        tiles=means[0],
        tokens=means[1],
        squares=sum(length**2 for length in tokens) / len(tokens),
        answers=means[2],
        captions=means[3],
        basis=f"mean of {counted(len(rows), 'record')} per source, {how}",
        pictures=means[4],
        picture_squares=means[5],
    )


def mixed_sample(samples: Mapping[str, MeanSample], shares: Mapping[str, float]) -> MeanSample:
    """The mean sample of a mixture."""
    total = sum(shares.values())

    def mean(field: str) -> float:
        """Mean of one field."""
        return float(
            sum(getattr(samples[name], field) * share / total for name, share in shares.items())
        )

    basis = "; ".join(dict.fromkeys(samples[name].basis for name in shares))
    # By some sources alone, the others' images would count as none.
    known = all(samples[name].pictures is not None for name in shares)
    return MeanSample(
        mean("tiles"),
        mean("tokens"),
        mean("squares"),
        mean("answers"),
        mean("captions"),
        basis,
        pictures=mean("pictures") if known else None,
        picture_squares=mean("picture_squares") if known else None,
    )


Row = tuple[float, float, float, float, float, float]
"""Tiles, tokens, answer tokens, 1 for a caption, pictures, and their squared tiles."""


def _measurer(model: MetaModel, sequence: int) -> Callable[[Record], Row]:
    layout, tokenizer = model.layout, model.tokenizer
    processor = None
    if tokenizer is not None:
        processor = Processor(tokenizer, layout, sequence, day=model.day)

    def measure(record: Record) -> Row:
        """Tiles, tokens and answer tokens of one record, and whether it is a caption."""
        caption = float(record.kind == "caption" and len(record.images) == 1)
        if processor is not None:
            text = processor.draft("plan", record).text
            counts = [(end - start) / layout.tokens_per_tile for start, end in text.runs]
            return (
                sum(counts),
                len(text),
                float((text.labels != IGNORED).sum()),
                caption,
                *_pictures(counts, layout),
            )
        counts = [tile_count(image, layout) for image in record.images]
        tiles = sum(counts)
        visual = tiles * layout.tokens_per_tile + 2 * layout.edge * len(record.images)
        tokens = visual + _characters(record.turns) / CHARACTERS
        answers = (
            _characters([turn for turn in record.turns if turn.role == "assistant"]) / CHARACTERS
        )
        return tiles, min(tokens, sequence), answers, caption, *_pictures(counts, layout)

    return measure


def _pictures(counts: Sequence[float], layout: VisualLayout) -> tuple[float, float]:
    """Pictures that the tower sees, and their squared tiles, of images of so many tiles."""
    if layout.native is None:
        # Tiles do not see each other, so that each counts 1, and so does its square.
        return sum(counts), sum(counts)
    return len(counts), sum(count**2 for count in counts)


def _characters(turns: Sequence[Turn]) -> int:
    return sum(len(turn.text) for turn in turns)

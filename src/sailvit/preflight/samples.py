"""The mean sample of a stage: read from its sources where they exist, otherwise assumed, and
marked as assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sailvit.core.batch import IGNORED
from sailvit.core.errors import DataError
from sailvit.core.formatting import counted
from sailvit.core.records import Record, Source, Turn
from sailvit.data.processing.images import tile_count
from sailvit.data.processing.processor import Processor
from sailvit.models.loading.build import MetaModel

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


def assumed_sample(model: MetaModel, sequence: int) -> MeanSample:
    """One image of half the allowed tiles and its thumbnail, and some text."""
    layout = model.layout
    tiles = 1.0 if layout.max_tiles == 1 else (layout.max_tiles + 1) // 2 + 1.0 + layout.thumbnail
    tokens = min(tiles * layout.tokens_per_tile + ASSUMED_TEXT, sequence)
    basis = f"assumed: one image of {tiles:.0f} tiles and {ASSUMED_TEXT} text tokens, half of them answers"
    return MeanSample(tiles, tokens, tokens**2, ASSUMED_TEXT / 2, 0.0, basis)


def measured_sample(source: Source, model: MetaModel, sequence: int) -> MeanSample:
    """The mean of records spread over a source; DataError when none of them can be read."""
    count = min(READ, len(source))
    measure = _measurer(model, sequence)
    rows, failure = [], None
    for place in range(count):
        try:
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
    return MeanSample(
        mean("tiles"), mean("tokens"), mean("squares"), mean("answers"), mean("captions"), basis
    )


Row = tuple[float, float, float, float]
"""Tiles, tokens, answer tokens, and 1 for a caption."""


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
            visual = float((text.tokens == layout.placeholder_id).sum())
            return (
                visual / layout.tokens_per_tile,
                len(text),
                float((text.labels != IGNORED).sum()),
                caption,
            )
        tiles = sum(tile_count(image, layout) for image in record.images)
        visual = tiles * layout.tokens_per_tile + 2 * layout.edge * len(record.images)
        tokens = visual + _characters(record.turns) / CHARACTERS
        answers = (
            _characters([turn for turn in record.turns if turn.role == "assistant"]) / CHARACTERS
        )
        return tiles, min(tokens, sequence), answers, caption

    return measure


def _characters(turns: Sequence[Turn]) -> int:
    return sum(len(turn.text) for turn in turns)

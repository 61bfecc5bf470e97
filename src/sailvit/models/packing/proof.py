"""The proof that samples of a pack do not see each other: a few tokens run through the model's
own weights.

One sample is changed: the others' outputs must stay as they were. The last token of every
sample is changed: the outputs before it must stay. And samples read together must give what
each gives alone, through the model's own plain attention. Before training, the same samples are
also read behind others that fill as long a row as a step has: what a layer derives from a place
in the row instead of in the sample may show only there, as Llama 4's scores do after 8192 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sailvit.core.errors import ModelError
from sailvit.models.packing.segments import Segments

_LENGTHS = (6, 9, 1, 8)
"""Tokens of the proof's samples."""

_LARGEST_BLOCK = 1024
"""Most tokens of a compressed block that the proof fills; larger numbers mean something else."""

_CHANGED = 1
"""The sample that is changed: others lie before and after it."""

_FILLING = 64
"""Tokens of the samples that fill a row: one bucket of packed attention."""

_SAME = (1e-5, 5e-3)
"""Largest relative error of outputs that must not change, in float32 and with kernels in bf16.
Not 0: when another sample changes, experts get other numbers of tokens, and sums in another
order move the last digits."""

_ALONE = (1e-4, 5e-2)
"""The same between two kernels. In bf16 the median counts, as a token near the border between
two experts may go to the other one."""

FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError),
    *(RuntimeError, TypeError, ValueError, ModelError),
)
"""What a model raises when it cannot read in a given way."""

Read = Callable[[torch.Tensor, Segments], torch.Tensor]
"""Outputs float[T, W] at all int64[T] tokens."""


@dataclass(frozen=True)
class PackingErrors:
    """What the proof found: the largest errors, relative to the size of outputs."""

    others: float
    """Error of samples when another one changes."""
    past: float
    """Error of tokens when later ones change."""
    alone: float
    """Error of samples together against one at a time."""
    half: bool
    """Whether kernels compute in bf16, so that errors are larger."""
    behind: float = 0.0
    """Error of samples behind others that fill a row, against the start of a row; 0 where that
    was not tried."""

    @property
    def fault(self) -> str | None:
        """What is wrong, as the end of a sentence; None when nothing is."""
        # `not a <= b`, so that NaN is a fault too.
        if not self.others <= _SAME[self.half]:
            return f"samples see each other (a change of one moves others by {self.others:.1e})"
        if not self.past <= _SAME[self.half]:
            return f"tokens see later ones (a change of them moves earlier by {self.past:.1e})"
        if not self.alone <= _ALONE[self.half]:
            return f"samples come out otherwise than alone (by {self.alone:.1e})"
        if not self.behind <= _ALONE[self.half]:
            return f"samples come out otherwise at the end of a long row (by {self.behind:.1e})"
        return None


def segments_of(lengths: tuple[int, ...], device: torch.device) -> Segments:
    """Segments of these lengths, side by side."""
    bounds = torch.tensor((0, *lengths)).cumsum(0).to(torch.int32)
    return Segments(bounds.to(device), max(lengths))


def proof_lengths(config: Any) -> tuple[int, ...]:
    """Tokens of the proof's samples, for a language of that config.

    Layers that read many tokens compressed to one do nothing before the first such block is
    full, so that the last sample is longer than two of them.
    """
    named = [value for name, value in config.to_dict().items() if "compress" in name]
    flat = [v for value in named for v in (value.values() if isinstance(value, dict) else [value])]
    largest = max((v for v in flat if type(v) is int and v <= _LARGEST_BLOCK), default=0)
    return (*_LENGTHS[:-1], max(_LENGTHS[-1], 2 * largest + 1 if largest else 0))


def draw_tokens(vocabulary: int, lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """int64[T]: the proof's tokens, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (sum(lengths),), generator=generator).to(device)


def read_alone(read: Read, tokens: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """Outputs float[T, W] of the proof's samples, one at a time."""
    parts = tokens.split(lengths)  # type: ignore[no-untyped-call]
    return torch.cat([read(part, segments_of((len(part),), part.device)) for part in parts])


def measure(
    read: Read, tokens: torch.Tensor, segments: Segments, alone: torch.Tensor, vocabulary: int
) -> PackingErrors:
    """The errors found by three runs of the proof's tokens; `alone` holds the outputs of one
    sample at a time.
    """
    bounds = segments.boundaries.long()
    before = read(tokens, segments)
    half = tokens.is_cuda or before.dtype != torch.float32
    shift = max(1, vocabulary // 3)
    inside = torch.zeros_like(tokens, dtype=torch.bool)
    inside[bounds[_CHANGED] : bounds[_CHANGED + 1]] = True
    last = torch.zeros_like(inside)
    last[bounds[1:] - 1] = True
    moved = []
    for changed in (inside, last):
        other = torch.where(changed, (tokens + shift) % vocabulary, tokens)
        moved.append(_errors(read(other, segments), before)[~changed].max().item())
    return PackingErrors(moved[0], moved[1], _worst(before, alone, half=half), half)


def measure_behind(
    read: Read, tokens: torch.Tensor, segments: Segments, alone: torch.Tensor, length: int
) -> float:
    """The error of the samples at the end of a row of `length` tokens, behind short samples that
    fill it; `read` gives outputs at the last tokens alone, as many as there are in `tokens`.
    """
    room = max(0, length - len(tokens))
    bounds = segments.boundaries
    starts = torch.arange(0, room, _FILLING, dtype=bounds.dtype, device=bounds.device)
    filling = tokens.repeat(-(-room // len(tokens)))[:room]
    longest = max(segments.longest, min(room, _FILLING))
    row = Segments(torch.cat([starts, bounds + room]), longest)
    found = read(torch.cat([filling, tokens]), row)
    return _worst(found, alone, half=tokens.is_cuda or found.dtype != torch.float32)


def _worst(found: torch.Tensor, expected: torch.Tensor, *, half: bool) -> float:
    errors = _errors(found, expected)
    return (errors.median() if half else errors.max()).item()


def _errors(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """float[T]: distance per position, relative to the size of what is expected."""
    found, expected = found.float(), expected.float()
    size = expected.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    errors: torch.Tensor = (found - expected).norm(dim=-1) / size
    return errors

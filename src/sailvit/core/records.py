"""What a source yields (`Record`) and what the tokenizer makes of it (`Sample`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from sailvit.core.bad_records import UNUSABLE, BadRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch

    from sailvit.core.batch import Grids

IMAGE_MARK = "<image>"
"""Stands in a turn's text where an image goes, as in LLaVA's JSON; the n-th mark takes the n-th
image."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    """Who speaks; loss is on assistant turns only."""
    text: str
    """Plain text with `<image>` marks."""
    learnt: bool = True
    """Whether an assistant's turn is trained on; of others it says nothing."""
    reasoning: str = ""
    """What the assistant thought before the text, where a row keeps it apart; shown by
    templates that know it."""


class Rendering(Protocol):
    """An image that is drawn when its pixels are asked for: planning needs its size only."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""

    def pixels(self) -> np.ndarray:
        """uint8[H, W, 3], the same at every call."""


ImageLike: TypeAlias = "Path | bytes | np.ndarray | Rendering"
"""A file, encoded bytes, decoded uint8[H, W, 3], or a drawing to be made."""


@dataclass(frozen=True)
class Record:
    """One sample as a source gives it: nothing is decoded or tokenized yet."""

    id: str
    """Unique within its source; names the sample in logs and errors."""
    turns: tuple[Turn, ...]
    """The conversation; a caption is a user turn that asks and an assistant turn that
    describes."""
    images: tuple[ImageLike, ...] = ()
    """In the order of their marks."""
    kind: str = "chat"
    """`caption` makes the pair usable by the contrastive objective; otherwise free (`ocr`,
    `qa`, `text`, ...)."""
    unread: tuple[str, ...] = field(default=(), compare=False)
    """Keys of its row that hold a value and were not read, and grounding marks (`<box>`) that
    are learnt as plain words; shown to people, never used."""


@dataclass(frozen=True)
class Sample:
    """One record after tokenizing and decoding, ready to be packed."""

    id: str
    """`source/record id`."""
    tokens: torch.Tensor
    """int64[T]: token ids, with one placeholder id per visual token."""
    labels: torch.Tensor
    """int64[T]: the token to predict *after* each position, or -100; already shifted, so
    packing cannot leak."""
    tiles: torch.Tensor
    """uint8[I, C, H, W]: the crops of all images, in placeholder order; I may be 0."""
    image_of_tile: torch.Tensor
    """int64[I]: which of the sample's images each tile was cut from."""
    caption: bool
    """Whether the answer describes the sample's only image, so that both form a contrastive
    pair."""
    grids: Grids | None = None
    """Rows and columns of tiles of each image in native resolution; None where every tile is a
    picture by itself."""


class Source(Protocol):
    """Records by position. A format implements this, and those of the protocols below that it
    can.
    """

    def __len__(self) -> int:
        """Number of records."""

    def __getitem__(self, position: int) -> Record:
        """The record at `position` (0 <= position < len); raises DataError when it is damaged."""

    @property
    def fingerprint(self) -> str:
        """A short hash of the content or of what determines it; stored in the run's manifest."""


# Optional abilities of a source. A class has an ability when it has the members: nothing is
# registered, so that a format of the user's own needs no import of ours.


@runtime_checkable
class Faulted(Protocol):
    """A source that leaves out what it finds damaged when it opens."""

    @property
    def faults(self) -> tuple[BadRecord, ...]:
        """What was left out, without the source's name: one per file and kind of damage."""


@runtime_checkable
class Sharded(Protocol):
    """A source in several files; the order can shuffle in windows of them."""

    @property
    def shards(self) -> tuple[int, ...]:
        """Records per file, in the order of their positions."""


@runtime_checkable
class Placed(Protocol):
    """A source that knows where its records lie."""

    def place(self, position: int) -> tuple[str | None, int | None]:
        """The file of the record at `position`, and its place there: line, row or byte."""


@runtime_checkable
class Fetched(Protocol):
    """A source whose shards are fetched from elsewhere."""

    def fetch(self, shards: Sequence[int]) -> None:
        """Begin to fetch these shards, in this order, without waiting for them."""


def faults_of(source: Source, name: str = "") -> tuple[BadRecord, ...]:
    """What the source, which is called `name`, left out when it opened; empty for one that cannot
    tell.
    """
    faults = source.faults if isinstance(source, Faulted) else ()
    return tuple(replace(fault, source=name) for fault in faults)


def shards_of(source: Source) -> tuple[int, ...]:
    """Records per file; all in one for a source that knows of no files."""
    return (tuple(source.shards) if isinstance(source, Sharded) else ()) or (len(source),)


def place_of(source: Source, position: int) -> tuple[str | None, int | None]:
    """The file of a record and its place there, if that is known; what tells it may be damaged
    too.
    """
    try:
        return source.place(position) if isinstance(source, Placed) else (None, None)
    except UNUSABLE:
        return None, None

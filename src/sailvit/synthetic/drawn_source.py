"""Drawn sources: what they share, and how their options are read."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import ValidationError

from sailvit.core.config import Config
from sailvit.core.errors import DataError
from sailvit.core.records import Record
from sailvit.core.seeding import derive_seed, numpy_generator

Options = TypeVar("Options", bound=Config)


class DrawnSource(ABC):
    """`size` records, each a pure function of what determines the source and of its position."""

    version: ClassVar[int] = 1
    """Raised whenever the same options give other records."""
    noun: ClassVar[str]
    """What its records show, in plural."""

    def __init__(self, size: int, seed: int, shares: Mapping[str, float], *stream: str) -> None:
        """`shares` are those of the kinds of records, `stream` the name of its random numbers."""
        self._size = size
        # Other mixtures get other streams: two sources of one seed must not show the same in the
        # same order.
        self._stream = derive_seed(seed, *stream, *map(str, sorted(shares.items())))
        self._names = sorted(shares)
        self._limits = list(accumulate(shares[name] for name in self._names))

    def __len__(self) -> int:
        """Number of records."""
        return self._size

    def __getitem__(self, position: int) -> Record:
        """The record at `position`; nothing is drawn yet."""
        if not 0 <= position < self._size:
            raise IndexError(f"position {position} of {self._size} {self.noun}")
        rng = numpy_generator(self._stream, position)
        threshold = rng.random() * self._limits[-1]
        kind = self._names[int(np.searchsorted(self._limits, threshold, side="right"))]
        return self.record(position, kind, rng)

    @abstractmethod
    def record(self, position: int, kind: str, rng: np.random.Generator) -> Record:
        """The record of this kind at `position`; `rng` is its own."""

    @property
    @abstractmethod
    def determined_by(self) -> list[Any]:
        """What determines the records beside the version, as JSON values."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what determines the records."""
        text = json.dumps([self.version, *self.determined_by], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def named_shares(value: Any, known: Collection[str], lacks: str) -> Any:
    """Shares by name; a bare name or a list of names stands for equal shares.

    ValueError, which begins with `lacks`, for a name that is not known; other types pass, as
    the field's own check refuses them.
    """
    names = [value] if isinstance(value, str) else value
    shares = dict.fromkeys(names, 1.0) if isinstance(names, list | tuple) else names
    for name in shares if isinstance(shares, Mapping) else ():
        if name not in known:
            near = get_close_matches(str(name), known, n=1) or [", ".join(known)]
            raise ValueError(f"{lacks} {name!r}; write {near[0]}")
    return shares


def drawn_options(kind: type[Options], values: Mapping[str, Any], what: str) -> Options:
    """The options of a drawn source; DataError with all that does not hold."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"options of the {what} do not hold: {problems}") from error

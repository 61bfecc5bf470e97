"""The base of all drawn sources, and how their options are read."""

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
    """`size` records; each depends on the source's options and on its position alone."""

    version: ClassVar[int] = 1
    """Raise it when the same options give other records: it is part of the fingerprint."""
    noun: ClassVar[str]
    """What its records show, in plural."""

    def __init__(self, size: int, seed: int, shares: Mapping[str, float], *stream: str) -> None:
        """`shares` are those of the kinds of records; `stream` names the random numbers."""
        self._size = size
        # The shares belong to the seed: two sources of one seed, a training and an evaluation
        # mixture, say, must not show the same records in the same order.
        self._stream = derive_seed(seed, *stream, *map(str, sorted(shares.items())))
        # Sorted: the order in which a recipe lists the kinds must not change the records.
        self._names = sorted(shares)
        self._limits = list(accumulate(shares[name] for name in self._names))

    def __len__(self) -> int:
        """Number of records."""
        return self._size

    def __getitem__(self, position: int) -> Record:
        """The record at `position`; its pixels are not drawn yet."""
        if not 0 <= position < self._size:
            raise IndexError(f"position {position} of {self._size} {self.noun}")
        # A generator per record, so that any worker may draw any record, in any order.
        rng = numpy_generator(self._stream, position)
        threshold = rng.random() * self._limits[-1]
        kind = self._names[int(np.searchsorted(self._limits, threshold, side="right"))]
        return self.record(position, kind, rng)

    @abstractmethod
    def record(self, position: int, kind: str, rng: np.random.Generator) -> Record:
        """The record of this kind at `position`; `rng` belongs to this record alone."""

    @property
    @abstractmethod
    def determined_by(self) -> list[Any]:
        """All that the records depend on beside the version, as JSON values."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that the records depend on."""
        text = json.dumps([self.version, *self.determined_by], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def named_shares(value: Any, known: Collection[str], lacks: str) -> Any:
    """Shares by name; a single name or a list of names gives equal shares.

    An unknown name raises ValueError, whose text begins with `lacks`. Values of other types are
    returned as they are: the field's own check refuses them.
    """
    names = [value] if isinstance(value, str) else value
    shares = dict.fromkeys(names, 1.0) if isinstance(names, list | tuple) else names
    for name in shares if isinstance(shares, Mapping) else ():
        if name not in known:
            near = get_close_matches(str(name), known, n=1) or [", ".join(known)]
            raise ValueError(f"{lacks} {name!r}; write {near[0]}")
    return shares


def drawn_options(kind: type[Options], values: Mapping[str, Any], what: str) -> Options:
    """The options of a drawn source; DataError that lists all problems."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"options of the {what} do not hold: {problems}") from error

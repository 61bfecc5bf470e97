"""Which files of a tar make a sample, by WebDataset's rule, and where the samples of a shard
start.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import one_line
from sailvit.data.shards.files import Faults
from sailvit.data.shards.tars import DamageError, Stamp, members, stamp_of, wrong

_TEXTS = ("txt", "json")
_IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
IMAGE = re.compile(rf"(?:(\d+)\.)?(?:{'|'.join(_IMAGE_ENDINGS)})")
"""Endings of images; a number before them orders several of one sample. Others, as `seg.png`,
are not read."""
RULE = (
    "A name up to its first dot is a sample's key, and the rest its ending; expected .jpg, .jpeg,"
    " .png or .webp with .txt or .json, and .0.jpg, .1.jpg, ... for several images. Names with more"
    " dots need something else in their place: scan_0_v1_5.png"
)
"""WebDataset's rule for the files of a sample, for messages."""
_PICKLES = frozenset(("pkl", "pickle", "pyd", "pt", "pth", "joblib"))
"""Endings of files that other readers unpickle, which runs code in them."""


def is_read(ending: str) -> bool:
    """Whether files with this ending are read: texts and images."""
    return ending in _TEXTS or IMAGE.fullmatch(ending) is not None


def split_name(path: str) -> tuple[str, str]:
    """Key and ending of a file, split at the first dot of its name; hidden files have no key."""
    folder, slash, name = path.removeprefix("./").rpartition("/")
    stem, _, ending = name.partition(".")
    return (f"{folder}{slash}{stem}" if stem else ""), ending.lower()


def index_samples(path: Path, digest: blake2b, faults: Faults) -> tuple[Stamp, NDArray[np.int64]]:
    """A shard's stamp, and where its samples start; name, offset and size of every member go
    into the digest.
    """
    samples = _Samples(path, faults)
    stamp: Stamp = (-1, -1)
    try:
        with path.open("rb") as file:
            stamp = stamp_of(file)
            for member in members(file, 0):
                digest.update(
                    # Headers alone, as reading all contents would take as long as an epoch.
                    f"{member.name}\0{member.offset_data}\0{member.size}\0".encode(
                        errors="surrogateescape"
                    )
                )
                samples.add(member)
        samples.finish()
    except DamageError as error:
        last = samples.drop_last()
        reason = f"{error}; the samples before it are used" + (
            f", without the last one, {last}" if last else ""
        )
        faults.add(path, error.offset, "cut shard", reason)
    except OSError as error:
        faults.add(
            path,
            None,
            "missing shard",
            f"it cannot be read ({error.strerror}); check its place and rights",
        )
    digest.update(str(len(samples.offsets)).encode())
    return stamp, np.array(samples.offsets, dtype=np.int64)


class _Samples:
    """Collects the samples of one shard from its members, one after the other."""

    def __init__(self, path: Path, faults: Faults) -> None:
        self._path = path
        self._faults = faults
        self._keys: set[str] = set()
        self._endings: set[str] = set()
        self._last = ""
        self._taken = False
        self.offsets: list[int] = []

    def add(self, member: tarfile.TarInfo) -> None:
        """Add a member to its sample; one that must not be read becomes a fault."""
        if damage := wrong(member):
            self._faults.add(self._path, member.offset, *damage)
            return
        key, ending = split_name(member.name) if member.isfile() else ("", "")
        if not key:
            return
        if key != self._last:
            self.finish()
            self._start(key, member.offset)
        if not self._taken or ending in self._endings:
            reason = (
                f"member {member.name!r} comes twice, or apart from others of its key; expected"
                " the members of a key once and together: the later ones are left out"
            )
            self._faults.add(self._path, member.offset, "duplicate", reason)
        elif ending in _PICKLES:
            reason = f"member {member.name!r} may hold a pickle, which runs code when it loads: it is never opened"
            self._faults.add(self._path, member.offset, "pickle", reason)
        self._endings.add(ending)

    def finish(self) -> None:
        """End the current sample; it is left out when its files look like several samples."""
        stems = _stems(self._endings) if self._taken else []
        if not stems:
            return
        offset, self._taken = self.offsets.pop(), False
        found = ", ".join(f".{ending}" for ending in sorted(self._endings))
        reason = (
            f"key {one_line(self._last, 100)!r} has files ending in {one_line(found, 200)}, which"
            f" look like samples of their own: {', '.join(stems[:8])}. {RULE}. None of them is used"
        )
        for _ in stems:
            self._faults.add(self._path, offset, "endings", reason)

    def drop_last(self) -> str:
        """Drop the last sample, as members of it may be lost; returns its key, empty without
        any.
        """
        if self.offsets:
            self.offsets.pop()
        return self._last

    def _start(self, key: str, offset: int) -> None:
        self._taken = key not in self._keys
        if self._taken:
            self._keys.add(key)
            self.offsets.append(offset)
        self._last = key
        self._endings = set()


def _stems(endings: Iterable[str]) -> list[str]:
    """Beginnings of endings that look like samples of their own, as `v1.5` in `v1.5.png` with
    `v1.5.txt`; empty where a text has a plain ending.
    """
    parts = [ending.rpartition(".") for ending in endings]
    texts, images = (
        {stem for stem, _, last in parts if last in kinds} for kinds in (_TEXTS, _IMAGE_ENDINGS)
    )
    # One sample may have several named images, but not a text for each of them.
    return sorted((texts & images) - {""}) if "" not in texts else []

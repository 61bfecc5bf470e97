"""Labelled images as WebDataset tars: `<key>.jpg` with `<key>.cls` beside it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from sailvit.core.errors import DataError
from sailvit.core.records import ImageLike
from sailvit.data.shards.samples import IMAGE, split_name
from sailvit.data.shards.tars import DamageError, content_of, members, wrong
from sailvit.evaluation.probes.sets.labelled import Labels, refuse_few_classes, sorted_names

_LONGEST_LABEL = 200
"""Most bytes of a .cls file."""


class LabelledTars:
    """Samples of tar shards as labelled images; 24 bytes per image stay in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        # Shard, first byte and length of every image.
        self._places = array("q")
        digest = blake2b(digest_size=8)
        labels: list[str] = []
        notes: list[str] = []
        for index, path in enumerate(self._paths):
            found = path.stat()
            digest.update(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
            for label, at, size in _samples(path, notes):
                labels.append(label)
                self._places.extend((index, at, size))
        self.classes = sorted_names(sorted(set(labels)))
        refuse_few_classes(self._paths[0].parent, self.classes)
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.labels: Labels = np.array([numbers[label] for label in labels], dtype=np.int64)
        self.notes = tuple(notes)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, position: int) -> ImageLike:
        """The bytes of the image at `position`."""
        shard, at, size = self._places[3 * position : 3 * position + 3]
        with self._paths[shard].open("rb") as file:
            file.seek(at)
            return file.read(size)


def _samples(path: Path, notes: list[str]) -> list[tuple[str, int, int]]:
    """Label, first byte and length of every image of a shard that has a label."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            for member in members(file, 0):
                if not member.isfile() or wrong(member) is not None:
                    continue
                key, ending = split_name(member.name)
                if IMAGE.fullmatch(ending):
                    images.setdefault(key, (member.offset_data, member.size))
                elif ending in {"cls", "cls.txt"}:
                    labels[key] = _label(content_of(file, member), path, member.name)
    except DamageError as error:
        notes.append(f"{path}: {error}; the samples before it are used")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its rights") from error
    if lacking := len(images.keys() - labels.keys()):
        notes.append(f"{path}: {lacking} images have no .cls beside them and are left out")
    return [(labels[key], *place) for key, place in images.items() if key in labels]


def _label(content: bytes, path: Path, name: str) -> str:
    try:
        text = content[: _LONGEST_LABEL + 1].decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        text = ""
    # -1 marks samples without a label, and would become a class.
    if not text or len(content) > _LONGEST_LABEL or text.startswith("-"):
        raise DataError(
            f"{path}: {name} holds {content[:30]!r}; expected the number or the name of a class"
        )
    return text

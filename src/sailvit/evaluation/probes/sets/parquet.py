"""Labelled images as Parquet files, in the layout of Hugging Face data sets."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sailvit.core.errors import DataError
from sailvit.core.records import ImageLike
from sailvit.data.rows.columns import DAMAGE, arrow
from sailvit.data.rows.image_refs import image_from
from sailvit.data.shards.files import Spans
from sailvit.evaluation.probes.sets.labelled import Labels, refuse_few_classes, sorted_names

IMAGE_COLUMNS = ("image", "img", "jpg", "png")
"""Names of the column with the images; the first that is there counts."""
LABEL_COLUMNS = ("label", "labels", "cls", "class", "fine_label")
"""Names of the column with the classes; the first that is there counts."""


class LabelledRows:
    """Rows of Parquet files as labelled images.

    Labels are read when the set opens. Of the images one row group is in memory, so they should
    be asked for in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        digest = blake2b(digest_size=8)
        found: list[Any] = []
        sizes: list[int] = []
        self._places: list[tuple[int, int]] = []
        named: tuple[str, ...] | None = None
        for index, path in enumerate(self._paths):
            labels, groups, names = _labels(path, digest)
            found += labels
            sizes += groups
            self._places += [(index, group) for group in range(len(groups))]
            named = named or names
        self._rows = Spans(sizes)
        self.classes, self.labels = _numbered(found, named, self._paths[0])
        refuse_few_classes(self._paths[0], self.classes)
        self.fingerprint = digest.hexdigest()
        self.notes: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._kept: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def image(self, position: int) -> ImageLike:
        """The image in the row at `position`."""
        group, row = self._rows.find(position)
        # Images are decoded in several threads, and share the row group.
        with self._lock:
            value = self._group(group)[row].as_py()
        return image_from(value, self._paths[self._places[group][0]].parent)

    def _group(self, group: int) -> Any:
        if self._kept is None or self._kept[0] != group:
            # Let go before the next one is read, or two row groups would be in memory.
            self._kept = None
            index, inside = self._places[group]
            path = self._paths[index]
            try:
                with arrow("pyarrow.parquet").ParquetFile(path) as file:
                    column = _column(file.schema_arrow.names, IMAGE_COLUMNS, path)
                    table = file.read_row_group(inside, columns=[column], use_threads=False)
            except DAMAGE as error:
                raise DataError(
                    f"{path} is damaged in row group {inside} ({error}); fetch it again",
                    kind="damaged shard",
                ) from error
            self._kept = (group, table.column(0))
        return self._kept[1]


def has_labels(path: Path) -> bool:
    """Whether a Parquet file has columns of images and of classes."""
    try:
        with arrow("pyarrow.parquet").ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
    except DAMAGE:
        return False
    return bool(names & set(IMAGE_COLUMNS)) and bool(names & set(LABEL_COLUMNS))


def _labels(path: Path, digest: blake2b) -> tuple[list[Any], list[int], tuple[str, ...] | None]:
    """The labels of a file, the rows of its groups, and the classes' names where it says them."""
    try:
        with arrow("pyarrow.parquet").ParquetFile(path) as file:
            names = file.schema_arrow.names
            column = _column(names, LABEL_COLUMNS, path)
            _column(names, IMAGE_COLUMNS, path)
            labels = file.read(columns=[column], use_threads=False).column(0).to_pylist()
            footer = file.metadata
            groups = [footer.row_group(each).num_rows for each in range(footer.num_row_groups)]
            said = (file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    except DAMAGE as error:
        raise DataError(
            f"{path} is no readable Parquet file ({error}); fetch it again", kind="damaged shard"
        ) from error
    found = path.stat()
    digest.update(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return labels, groups, _names(said, column)


def _names(said: bytes, column: str) -> tuple[str, ...] | None:
    """The classes' names in the features that `datasets` writes beside a schema."""
    try:
        feature = json.loads(said)["info"]["features"][column]
        return tuple(map(str, feature["names"]))
    except (ValueError, LookupError, TypeError):
        return None


def _numbered(
    values: Sequence[Any], named: tuple[str, ...] | None, path: Path
) -> tuple[tuple[str, ...], Labels]:
    """The classes, and every row's number among them."""
    bad = next((value for value in values if not _is_label(value, named)), 0)
    if not _is_label(bad, named):
        raise DataError(
            f"{path} has a row of label {bad!r}; expected a number from 0 on, or a name"
            + (f", of {len(named)} classes" if named else "")
            + ": leave out sets without labels, such as ImageNet's test set"
        )
    if named is not None:
        # Ours are sorted, so that sets whose files number the same names otherwise agree.
        names = [named[value] if isinstance(value, int) else value for value in values]
    else:
        names = [str(value) for value in values]
    classes = sorted_names(sorted(set(names)))
    places = {name: place for place, name in enumerate(classes)}
    return classes, np.array([places[name] for name in names], dtype=np.int64)


def _is_label(value: Any, named: tuple[str, ...] | None) -> bool:
    if isinstance(value, int):
        return 0 <= value < (len(named) if named else value + 1)
    return isinstance(value, str) and bool(value)


def _column(names: Sequence[str], known: Sequence[str], path: Path) -> str:
    """The first column of the file that is known."""
    found = next((name for name in known if name in names), None)
    if found is None:
        raise DataError(
            f"{path} has columns {', '.join(names) or 'none'}; expected one of {', '.join(known)}:"
            " rename yours"
        )
    return found

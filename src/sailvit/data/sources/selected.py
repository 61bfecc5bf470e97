"""Format `selected`: the records of another source that `sailvit data curate` chose."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from sailvit.core.bad_records import BadRecord
from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record, Source, faults_of, place_of, shards_of
from sailvit.data.rows.row import RowOptions, read_options

POSITIONS = "positions.npy"
"""File of the records' positions in the inner source: int64[n], increasing."""
SOURCE = "source.json"
"""File of the inner source's config, and of its fingerprint when the records were chosen."""


class SelectedOptions(RowOptions):
    """Options of format `selected`."""

    path: str | None = None
    """Path of the inner source's data, if they have moved; None: they have not."""
    images: str | None = None
    """Folder of its images, if they have moved; None: they have not."""


class SelectedSource:
    """The chosen records of a source, in its order; positions are a memory-mapped file."""

    def __init__(self, inner: Source, positions: NDArray[np.int64]) -> None:
        self._inner = inner
        self._positions = positions
        digest = blake2b(inner.fingerprint.encode(), digest_size=8)
        digest.update(positions.tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: int) -> Record:
        return self._inner[int(self._positions[position])]

    @property
    def faults(self) -> tuple[BadRecord, ...]:
        """The faults of the inner source."""
        return faults_of(self._inner)

    def place(self, position: int) -> tuple[str | None, int | None]:
        """The place of a chosen record in the inner source."""
        return place_of(self._inner, int(self._positions[position]))

    @property
    def shards(self) -> tuple[int, ...]:
        """Chosen records per shard of the inner source; shards without any are left out."""
        ends = np.searchsorted(self._positions, np.cumsum([0, *shards_of(self._inner)]))
        return tuple(count for count in np.diff(ends).tolist() if count)


def open_selected(config: SourceConfig, folder: Path) -> SelectedSource:
    """The records that the folder `path` selects; DataError when their source has changed."""
    options = read_options(SelectedOptions, config)
    if config.path is None:
        raise DataError(
            "no `path`; format selected needs the folder that `sailvit data curate` wrote"
        )
    where = folder / config.path
    inner, found = _open_inner(where, options)
    positions = _positions(where / POSITIONS, len(inner))
    if found["fingerprint"] != inner.fingerprint:
        raise DataError(
            f"{where} selects from a source with fingerprint {found['fingerprint']}, which now"
            f" is {inner.fingerprint}; positions may mean other records: run `sailvit data"
            " curate` again",
            kind="changed source",
        )
    return SelectedSource(inner, positions[: options.limit])


def _open_inner(folder: Path, options: SelectedOptions) -> tuple[Source, dict[str, Any]]:
    # Imported late, as the list of openers imports this module.
    from sailvit.data.sources import open_source

    path = folder / SOURCE
    if not path.is_file():
        raise DataError(
            f"{folder} has no {SOURCE}; expected a folder that `sailvit data curate` wrote to"
            " the end"
        )
    moved = {
        name: value for name in ("path", "images") if (value := getattr(options, name)) is not None
    }
    try:
        found = json.loads(path.read_bytes())
        config = SourceConfig.model_validate({**found["source"], **moved})
        _ = found["fingerprint"]
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); run `sailvit data curate` again"
        ) from error
    return open_source("selected", config, folder), found


def _positions(path: Path, length: int) -> NDArray[np.int64]:
    try:
        positions: NDArray[np.int64] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); run `sailvit data curate` again"
        ) from error
    rising = (
        positions.ndim == 1 and positions.dtype == np.int64 and bool(np.all(np.diff(positions) > 0))
    )
    if not rising or (len(positions) and not 0 <= positions[0] <= positions[-1] < length):
        raise DataError(
            f"{path} holds {positions.dtype}{list(positions.shape)}; expected rising int64"
            f" positions below {length}: run `sailvit data curate` again"
        )
    return positions

"""Folders that `save_to_disk` of Hugging Face datasets wrote: Arrow streams, listed in
`state.json`.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.data.rows.columns import COLUMNS, DAMAGE, arrow, column_record, known_columns
from sailvit.data.rows.conversations import RecordOptions
from sailvit.data.rows.image_refs import image_path
from sailvit.data.rows.row import read_options
from sailvit.data.shards.files import Faults
from sailvit.data.sources.column_files import ColumnFiles


class ArrowSource(ColumnFiles):
    """Rows of Arrow streams as records, by position.

    Only the byte offset and the first row of each record batch are kept. A read maps the file
    into memory and takes one row of its batch; the other rows are not read from disk.
    """

    def __init__(self, folder: Path, images: Path, options: RecordOptions) -> None:
        paths, mark = _read_state(folder)
        digest = blake2b((options.model_dump_json() + mark).encode(), digest_size=8)
        faults = Faults()
        indexes = [_index(path, digest, faults) for path in paths]
        self._schemas = [schema for schema, _, _ in indexes]
        self._offsets = [offsets for _, offsets, _ in indexes]
        self._images = images
        self._options = options
        groups, found = [sizes for _, _, sizes in indexes], digest.hexdigest()
        super().__init__(paths, groups, options.limit, faults=faults, fingerprint=found)

    def __getitem__(self, position: int) -> Record:
        batch, row = self._rows.find(position)
        file, inside = self._files.find(batch)
        path, at = self._paths[file], self._offsets[file][inside]
        try:
            held = _read_batch(path, at, self._schemas[file])
            found = held.select(known_columns(held.schema.names, path)).slice(row, 1)
            # Arrow trusts the offsets in a file: without the check a flipped bit can crash the
            # process.
            found.validate(full=True)
            fields = found.to_pylist()[0]
            left = [name for name in held.schema.names if name not in COLUMNS]
            left = [name for name in left if held.column(name)[row].is_valid]
        except DAMAGE as error:
            raise DataError(
                f"{path} is damaged at byte {at} ({error}); expected the file as it was when"
                " opened: save it again",
                kind="damaged shard",
            ) from error
        return column_record(
            fields, self._options, folder=self._images, position=position, left=left
        )


def open_arrow(config: SourceConfig, folder: Path) -> ArrowSource:
    """The rows of the folder at `path`."""
    options = read_options(RecordOptions, config)
    if config.path is None:
        raise DataError("no `path`; format arrow needs a folder that save_to_disk wrote")
    path = folder / config.path
    return ArrowSource(path, folder / config.images if config.images else path, options)


def _read_state(folder: Path) -> tuple[list[Path], str]:
    """The Arrow files of a data set that save_to_disk wrote, in order, and the fingerprint in
    its state.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(path.parent.name for path in folder.glob("*/state.json"))
        raise DataError(
            f"{folder} holds the splits {', '.join(splits) or 'none'}; let `path` name the"
            " folder of one"
        )
    try:
        state = json.loads((folder / "state.json").read_bytes())
        names = [str(file["filename"]) for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} has no usable state.json ({error}); expected a folder that save_to_disk"
            " wrote: save it again"
        ) from error
    if state.get("_indices_data_files"):
        raise DataError(
            f"{folder} reorders its rows by an index file; save it again after flatten_indices()"
        )
    return [image_path(folder, name) for name in names], str(state.get("_fingerprint"))


def _index(path: Path, digest: blake2b, faults: Faults) -> tuple[Any, list[int], list[int]]:
    """The schema, and offset and rows of each record batch before the first unreadable one.

    All of these and the file's name go into the digest.
    """
    schema, offsets, sizes, at = None, [], [], 0
    try:
        with arrow("pyarrow").memory_map(str(path)) as file:
            stream = arrow("pyarrow.ipc").open_stream(file)
            schema = stream.schema
            known_columns(schema.names, path)
            at = file.tell()
            for batch in stream:
                offsets.append(at)
                sizes.append(batch.num_rows)
                at = file.tell()
    except DAMAGE as error:
        reason = (
            f"no readable Arrow stream from byte {at} on ({error}); save the set again: what"
            " comes before is used"
        )
        faults.add(path, at if schema else None, "damaged shard", reason)
    digest.update(json.dumps([path.name, str(schema), offsets, sizes]).encode())
    return schema, offsets, sizes


def _read_batch(path: Path, at: int, schema: Any) -> Any:
    ipc = arrow("pyarrow.ipc")
    with arrow("pyarrow").memory_map(str(path)) as file:
        file.seek(at)
        return ipc.read_record_batch(ipc.read_message(file), schema)

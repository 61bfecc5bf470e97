"""The format of the data at a path, detected from the files, so that commands need only the
path.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from glob import glob, has_magic
from itertools import islice
from pathlib import Path
from typing import Any

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.file_tree import files_below
from sailvit.data.rows.turns import has_turns
from sailvit.data.shards.manifest import MANIFEST
from sailvit.data.sources.selected import POSITIONS

MARKERS = {
    MANIFEST: "indexed",
    POSITIONS: "selected",
    "state.json": "arrow",
    "dataset_dict.json": "arrow",
}
"""Files at the top of a folder that identify its format."""
FILES = {".tar": "webdataset", ".parquet": "parquet", ".tsv": "tsv"}
"""Formats by the ending of a file."""
IMAGES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
"""Endings of image files."""
TABLES = ("metadata.jsonl", "metadata.csv")
"""Tables of captions for the images below their folder."""

_ROW_FILES = (".json", ".jsonl")
_LOOKED_AT = 10_000
"""Most files of a folder that are examined, from the top down."""
_LONGEST_ROW = 1 << 26
"""Most bytes that are read to find the end of the first row."""
_READABLE = (
    "a folder that `sailvit data prepare`, `index` or `curate` wrote, a URL of one, a folder of"
    " save_to_disk, files ending in .tar, .parquet or .tsv, .json or .jsonl rows with"
    " conversations, captions or frames, or images with captions beside them"
)


def detect(path: Path | str, *, images: str | None = None) -> SourceConfig:
    """The config of the source at `path`, a file, folder, glob or URL; DataError when its
    format is not clear.
    """
    if (url := _url(path)) is not None:
        return SourceConfig(format="indexed", path=url, images=images)
    found, where = _kind(Path(path))
    return SourceConfig(format=found, path=str(where), images=images)


def _url(path: Path | str) -> str | None:
    """The URL in `path`, with the slashes that a Path merges; None when it is no URL."""
    scheme = re.match(r"([a-z][a-z0-9+]+):/+", str(path))
    return None if scheme is None else f"{scheme[1]}://{str(path)[scheme.end() :]}"


def _kind(path: Path) -> tuple[str, Path]:
    """Format of a file, folder or glob, and the path for its source."""
    if path.is_file():
        return _file_kind(path), path
    if path.is_dir():
        return _folder_kind(path)
    return _glob_kind(path), path


def _glob_kind(path: Path) -> str:
    """Format of the files that a glob matches."""
    matched = glob(str(path), recursive=True)  # noqa: PTH207
    if not matched:
        found = "matches nothing" if has_magic(str(path)) else "does not exist"
        raise DataError(f"{path} {found}; expected {_READABLE}", kind="missing file")
    endings = Counter(Path(name).suffix or "no ending" for name in matched)
    if len(endings) == 1 and (kind := FILES.get(next(iter(endings)))):
        return kind
    raise _unknown(path, endings)


def _file_kind(path: Path) -> str:
    if path.suffix in FILES:
        return FILES[path.suffix]
    if path.suffix in _ROW_FILES:
        return _row_kind(_first_row(path), path)
    packed = path.suffix in (".gz", ".zip", ".zst", ".tgz", ".bz2", ".xz")
    advice = ": unpack it" if packed else ""
    raise DataError(f"{path} ends in {path.suffix or 'nothing'}; expected {_READABLE}{advice}")


def _folder_kind(folder: Path) -> tuple[str, Path]:
    """Format of a folder by its files, and the path for its source: a single file of rows is
    that of a folder with images.
    """
    for name, kind in MARKERS.items():
        if (folder / name).is_file():
            return kind, folder
    files = [folder / name for name in islice(files_below(folder), _LOOKED_AT)]
    if (found := _loose_kind(folder, files)) is None:
        raise _unknown(folder, Counter(file.suffix.lower() or "no ending" for file in files))
    return found


def _loose_kind(folder: Path, files: list[Path]) -> tuple[str, Path] | None:
    """Format of files without a manifest, and the path for its source; None when it is not
    clear.
    """
    files = _telling(files)
    told = {FILES[file.suffix] for file in files if file.suffix in FILES}
    if not told and _pictures(files):
        tables = {file.parent for file in files if file.name in TABLES}
        if tables or not _rows(files):
            return ("folder", (tables or {folder}).pop()) if len(tables) < 2 else None
    # Tars and Parquet files are shards of one set; each table, and each file of rows, is a set
    # of its own.
    match sorted(told - {"tsv"}), _rows(files) + [file for file in files if file.suffix == ".tsv"]:
        case [kind], []:
            return kind, folder
        case [], [file]:
            return _file_kind(file), file
    return None


def _telling(files: list[Path]) -> list[Path]:
    """The files without those that describe a tar, as img2dataset writes a `.parquet` and a
    `_stats.json` beside each.
    """
    tars = {file.with_suffix("") for file in files if file.suffix == ".tar"}
    return [
        f
        for f in files
        if f.suffix == ".tar" or f.with_name(f.stem.removesuffix("_stats")) not in tars
    ]


def _pictures(files: list[Path]) -> set[Path]:
    """The images among `files`, without their endings."""
    return {file.with_suffix("") for file in files if file.suffix.lower() in IMAGES}


def _rows(files: list[Path]) -> list[Path]:
    """Files of rows, without JSON files of an image's name, which hold its caption."""
    pictures = _pictures(files)
    return [
        file for file in files if file.suffix in _ROW_FILES and file.with_suffix("") not in pictures
    ]


def _unknown(path: Path, endings: Counter[str]) -> DataError:
    found = ", ".join(f"{count} {suffix}" for suffix, count in endings.most_common(6)) or "nothing"
    return DataError(
        f"{path} holds {found}, which is not one format that can be told; expected {_READABLE}:"
        " name one file, or give the format"
    )


def _first_row(path: Path) -> Any:
    """The first row of a file of lines, or the first element of an array; the rest is not
    read.
    """
    size = 1 << 16
    while True:
        with path.open("rb") as file:
            read = file.read(size)
        # What is read may end within a character.
        text = read.decode("utf-8-sig", errors="ignore").lstrip()
        inside = text.removeprefix("[").lstrip()
        try:
            row, _ = json.JSONDecoder().raw_decode(inside)
        except (ValueError, RecursionError) as error:
            if len(read) < size or size >= _LONGEST_ROW:
                found = (
                    "does not start with a JSON row" if inside.strip("] \r\n\t") else "has no rows"
                )
                raise DataError(
                    f"{path} {found} ({error}); expected an array of objects, or one per line"
                ) from error
            # The first row may hold images, so ever more is read until it is whole.
            size *= 16
        else:
            return row


def _row_kind(row: Any, path: Path) -> str:
    """The format that reads rows with the keys of this one."""
    held = row if isinstance(row, dict) else {}
    keys = {key for key, value in held.items() if value is not None}
    if keys & {"video", "frames"}:
        return "video_frames"
    if has_turns(held):
        return "llava" if keys & {"image", "images"} else "chat"
    if "image" in keys and keys & {"text", "caption"}:
        return "captions"
    found = (
        f"keys {', '.join(map(str, row)) or 'none'}"
        if isinstance(row, dict)
        else type(row).__name__
    )
    raise DataError(
        f"the first row of {path} has {found[:200]}; expected `conversations` or `messages`, an"
        " `image` with `text` or `caption`, or `video` or `frames`: rename its keys, or give the"
        " format"
    )

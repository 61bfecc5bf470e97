"""Labelled images as files: folders, Parquet files and tars of the same pictures."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 24


def coloured(label: int, seed: int, side: int = SIDE) -> np.ndarray:
    """A noisy picture whose colour is that of its class."""
    rng = np.random.default_rng([label, seed])
    base = np.random.default_rng(label + 7).integers(40, 215, 3)
    return np.uint8(np.clip(base + rng.normal(0, 20, (side, side, 3)), 0, 255))


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write_folders(folder: Path, names: Sequence[str], per_class: int, seed: int = 0) -> Path:
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            place = folder / name / f"{index}.png"
            place.write_bytes(encoded(coloured(label, seed + index)))
    return folder


def write_parquet(path: Path, labels: Sequence[object], names: Sequence[str] = ()) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": encoded(coloured(n % 3, n)), "path": None} for n in range(len(labels))]
    table = pa.table({"image": images, "label": list(labels)})
    if names:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        said = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": said})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)
    return path


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path

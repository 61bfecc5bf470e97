"""An export from beginning to end: written beside its place, reloaded, compared, published."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from sailvit.core.run import write_json
from sailvit.interop.conversion import convert
from sailvit.interop.export.cases import Watching, pose
from sailvit.interop.export.gate import Parity, Reload, compare, reload_fresh
from sailvit.interop.export.hf import code_hashes, write_hf
from sailvit.interop.export.native import NATIVES, write_native
from sailvit.interop.export.sailvl import write_sailvl
from sailvit.interop.export.tower import write_tower
from sailvit.interop.export.trained import Trained, dtype_name
from sailvit.interop.new_folder import new_folder

Write = Callable[[Trained, Path], Watching]
"""Writes a model to a folder and says how it is reloaded."""


@dataclass(frozen=True)
class Layout:
    """A form in which a model leaves."""

    write: Write
    """Writes the folder; ModelError where the model does not fit, with what would make it."""
    says: str
    """What the layout is, for people."""


LAYOUTS: Mapping[str, Layout] = {
    "tower": Layout(write_tower, "the vision tower alone, as transformers' own class"),
    "hf": Layout(write_hf, "the whole model, with small code of our own (any tower and language)"),
    "sailvl": Layout(write_sailvl, "SAIL-VL2's names, with code of ours"),
    **{
        name: Layout(partial(write_native, native, name), f"transformers' {native.cls}")
        for name, native in NATIVES.items()
    },
}
"""By the name that `--to` takes."""


def export(
    load: Callable[[], Trained], layout: str, out: Path, *, reload: Reload = reload_fresh
) -> Parity:
    """Write a model to the new folder `out`; it appears when its reloaded copy gives the same.

    `load` makes the model, which is given up before the export is reloaded, so that memory
    holds one of them at a time.

    Raises:
        ModelError: the model does not fit the layout, or the copy differs.
        RunError: `out` is there and holds something, or cannot be written.
    """
    with new_folder(out) as draft, TemporaryDirectory(prefix="sailvit-export-") as work:
        # The model lives in this call only: nothing here may keep it while the copy is loaded.
        levels = _write(load(), LAYOUTS[layout], draft, Path(work))
        reload(draft, Path(work))
        parity = compare(Path(work), levels)
        write_json(draft / "parity.json", {"layout": layout, **parity.as_json()})
    return parity


def export_original(
    load: Callable[[], Trained], out: Path, *, reload: Reload = reload_fresh
) -> Parity:
    """Write an AIMv2 tower to the new folder `out` under the names of AIMv2's and SAILViT's
    releases, as they were when the tower was compared in transformers' layout.

    Raises:
        ModelError: the tower is no AIMv2, or differs.
        RunError: `out` is there and holds something, or cannot be written.
    """
    with TemporaryDirectory(prefix="sailvit-export-") as work:
        plain = Path(work) / "tower"
        # First as transformers' own class, which can be run: the original names need code that is
        # not here.
        parity = export(load, "tower", plain, reload=reload)
        # It compares every bit with what it reads back.
        convert(str(plain), out, "sailvit")
        for name in ("lineage.json", "parity.json"):
            shutil.copyfile(plain / name, out / name)
    return parity


def _write(trained: Trained, layout: Layout, draft: Path, work: Path) -> list[float]:
    """Write the folder and what is expected of it; each channel's levels of 256 in one
    normalised unit.
    """
    watching = layout.write(trained, draft)
    lineage = {
        **trained.lineage,
        "dtype": dtype_name(trained.dtype),
        "code": code_hashes(draft),
    }
    write_json(draft / "lineage.json", lineage)
    pose(trained, watching, work)
    said = trained.bundle.mllm.tower.preprocessing
    return [std * said.scale for std in said.std]

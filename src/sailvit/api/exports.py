"""A run's model in a layout that other programs load, proved before it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sailvit.api.models import find_model, find_stage, load_run
from sailvit.core.errors import ModelError
from sailvit.core.ownership import manifest_of
from sailvit.core.run import RunFolder
from sailvit.core.version import __version__
from sailvit.interop.export.export import export, export_original
from sailvit.interop.export.gate import Parity
from sailvit.interop.export.trained import Trained, round_weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""By the name that `--dtype` takes."""
_KEPT = ("created", "seed", "versions", "parents", "data")
"""What lineage.json repeats of a run's manifest."""


def export_model(
    path: str | Path,
    layout: str,
    out: str | Path,
    *,
    stage: str | None = None,
    dtype: str = "fp32",
    original: bool = False,
) -> Parity:
    """Write the model of a run to the new folder `out`, and what its reloaded copy differed by.

    Args:
        path: a run folder, a stage's folder such as `runs/mine/stages/01-fine`, or a folder with
            tower/, connector/ and language/.
        layout: one of `interop.export.export.LAYOUTS`.
        out: a folder that is not there yet, or empty.
        stage: name of the stage; None: the last.
        dtype: precision of the written weights, `fp32` or `bf16`.
        original: whether an AIMv2 tower gets the names of AIMv2's and SAILViT's releases.

    Raises:
        RunError: there is no run at `path`, or `out` holds something.
        ModelError: the model does not fit the layout, or its reloaded copy gives other numbers.
    """
    lineage = _lineage(path, stage)

    def load() -> Trained:
        """The model, its weights rounded."""
        # On the CPU, where both sides compute the same bits; weights need not fit a GPU.
        model = load_run(path, stage, device="cpu")
        round_weights(model, DTYPES[dtype])
        return Trained(model, DTYPES[dtype], lineage)

    if original and layout != "tower":
        raise ModelError(f"original names are a tower's; found the layout {layout}")
    return export_original(load, Path(out)) if original else export(load, layout, Path(out))


def _lineage(path: str | Path, stage: str | None) -> dict[str, Any]:
    """What is known of where a model comes from; RunError when there is none at `path`."""
    saved = find_model(path, stage)
    if not (saved.parts.parent.name == "stages" or RunFolder(Path(path)).recipe.is_file()):
        return {"sailvit": __version__}
    found = find_stage(path, stage)
    manifest = manifest_of(found.run.path)
    stages = [made for made in manifest.get("stages", ()) if made["index"] <= found.index]
    dropped = ("files", "parts", "unchanged")
    return {
        "sailvit": __version__,
        "run": found.recipe.name,
        "stage": found.name,
        **{name: manifest[name] for name in _KEPT if name in manifest},
        "stages": [{k: v for k, v in made.items() if k not in dropped} for made in stages],
    }

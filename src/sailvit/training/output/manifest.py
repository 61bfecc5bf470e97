"""The manifest: the file that says where a run's weights and data come from."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sailvit.core.ownership import files_below
from sailvit.core.recipe import NOT_FOLDERS, Recipe, Stage
from sailvit.core.recipe.differences import Absent, Difference
from sailvit.core.records import Source
from sailvit.core.run import RunFolder, read_json, write_json
from sailvit.core.version import __version__
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.parts import resolve_source
from sailvit.training.stages.stage_loader import samples_of
from sailvit.training.stages.stage_run import StageRun


def start_manifest(
    folder: RunFolder, recipe: Recipe, bundle: ModelBundle, sources: Mapping[str, Source]
) -> None:
    """Write the manifest of a run that begins: parents, data, versions, machine and seed."""
    sizes = {name: len(source) for name, source in sources.items()}
    values = {
        "name": recipe.name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "sailvit": __version__,
        "versions": versions(),
        "machine": machine(),
        "seed": recipe.seed,
        "chat_date": bundle.day.isoformat(),
        "architecture": {
            "tower": bundle.mllm.tower.model.config.model_type,
            "language": bundle.mllm.language.config.model_type,
        },
        "parents": {
            name: {"source": source, "fingerprint": fingerprint_folder(source)}
            for name, source in _parents(recipe).items()
        },
        "data": {name: source.fingerprint for name, source in sources.items()},
        "recipe": recipe.model_dump(mode="json"),
        "plan": [_planned(stage, sizes) for stage in recipe.stages],
        "stages": [],
        "resumed": [],
        "changed": [],
    }
    write_json(folder.manifest, values)


def run_day(folder: RunFolder, recipe: Recipe) -> date:
    """The date that dated chat templates write in a run: the recipe's, or else that of the
    run's start, so that a resumed run has the same prompts.
    """
    if recipe.model.chat_date is None and folder.manifest.is_file():
        values = read_json(folder.manifest)
        if begun := values.get("chat_date") or values.get("created", "")[:10]:
            return date.fromisoformat(begun)
    return recipe.model.day


def note_resume(folder: RunFolder, run: StageRun) -> None:
    """Add to the manifest that the run went on after an interruption."""
    values = read_json(folder.manifest)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    values["resumed"].append(
        {"at": now, "stage": run.stage.name, "step": run.step, "versions": versions()}
    )
    write_json(folder.manifest, values)


def note_changes(
    folder: RunFolder, recipe: Recipe, found: Sequence[Difference], *, stage: int, step: int
) -> None:
    """Add to the manifest which settings differ from now on, and since which step; nothing if
    none do.
    """
    if not found:
        return
    values = read_json(folder.manifest)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    settings = {
        each.path: {
            side: None if isinstance(value, Absent) else value
            for side, value in (("from", each.old), ("to", each.new))
        }
        for each in found
    }
    changed = {"at": now, "stage_index": stage, "step": step, "settings": settings}
    values["recipe"] = recipe.model_dump(mode="json")
    values["changed"] = [*values.get("changed", ()), changed]
    write_json(folder.manifest, values)


def note_stage(
    folder: RunFolder,
    run: StageRun,
    parts: Mapping[str, Path],
    unchanged: Mapping[str, str] | None = None,
) -> None:
    """Add a finished stage to the manifest, with the folders of its parts.

    `unchanged` names, by part, the earlier folder in the run whose weights are the same.
    """
    values = read_json(folder.manifest)
    stage = {
        "name": run.stage.name,
        "index": run.index,
        "steps": run.step,
        "samples": run.samples,
        "tokens": run.tokens,
        "seconds": round(run.seconds, 3),
        "train": {part: train.lr for part, train in run.stage.train.items()},
        "start": {
            part: run.stage.start_from.get(part, "previous")
            for part in ("tower", "connector", "language")
        },
        "parts": {part: str(path.relative_to(folder.path)) for part, path in parts.items()},
        **({"unchanged": dict(unchanged)} if unchanged else {}),
        "files": sorted(name for path in parts.values() for name in files_below(path, folder.path)),
    }
    # A run that was stopped between this note and the next state ends the stage once more: the
    # later note replaces this one.
    values["stages"] = [
        *(known for known in values["stages"] if known["index"] != run.index),
        stage,
    ]
    write_json(folder.manifest, values)


def _planned(stage: Stage, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What the progress, `watch` and the report need to know of a stage that has not run yet."""
    length = {unit: value for unit, value in stage.length.model_dump().items() if value is not None}
    # Epochs say nothing about the time left to a reader who has not opened the sources.
    if (samples := samples_of(stage, sizes)) is not None:
        length["samples"] = samples
    return {
        "name": stage.name,
        "train": {part: given.lr for part, given in stage.train.items()},
        "length": length,
    }


def _parents(recipe: Recipe) -> dict[str, str]:
    """Where weights come from: by part, and by `stage/part` for folders that a stage starts
    from.
    """
    model = recipe.model
    fresh = f"fresh, seed {recipe.seed}"
    begun = {
        "tower": model.tower,
        "connector": model.connector.source or fresh,
        "language": model.language,
    }
    later = {
        f"{stage.name}/{part}": start
        for stage in recipe.stages
        for part, start in stage.start_from.items()
        if start not in NOT_FOLDERS
    }
    return {**begun, **later}


def versions() -> dict[str, str]:
    """Versions of the software that the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }


def machine() -> dict[str, Any]:
    """The machine that the run began on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"device": device, "cores": os.cpu_count(), "system": platform.system()}


def fingerprint_folder(source: str) -> str | None:
    """A hash of a local checkpoint's weights and config; None for a hub id, which its revision
    identifies.
    """
    folder = Path(resolve_source(source))
    files = (
        sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])
        if folder.is_dir()
        else []
    )
    if not files:
        return None
    # Weights and config alone: a model card or tokenizer may change and the weights stay.
    digest = hashlib.blake2b(digest_size=8)
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()

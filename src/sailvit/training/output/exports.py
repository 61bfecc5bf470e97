"""Exports: the parts of a finished stage as folders, written after its state is safe, so that a
failure loses nothing.

state/exported.json notes which parts of which finished stage are exported, with size and time
of their files. A run that was stopped in between exports the others when it is resumed. A part
that no stage has changed since its last export is linked instead of written.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sailvit.core.disk import DISK_ERRORS, reason
from sailvit.core.errors import RunError, SailvitError
from sailvit.core.recipe import Part, Recipe
from sailvit.core.run import MODEL_FILE, RunFolder, read_json, write_json
from sailvit.distributed.processes import broadcast, gather_objects, rank
from sailvit.models.loading.folders import save_part
from sailvit.training.output.manifest import note_stage
from sailvit.training.stages.stage_run import StageRun

FAILURES = (
    *DISK_ERRORS,
    SailvitError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What disks, transformers and a model's own code raise while a part is saved and reloaded."""

_OF_SOURCES: dict[str, Any] = {
    **dict.fromkeys(("tower", "language", "lora", "revision", "trust_remote_code"), True),
    "connector": {"source"},
}
"""Settings that say where the parts came from and how they trained, which is not what a saved
model needs."""


def export_stage(run: StageRun, token: str) -> None:
    """Write the folders of the stage's parts that are not there yet, then the stage into the
    manifest.

    Every process calls it. A part that fails does not keep the others from being written.
    `token` identifies this completion of the stage: after a resume it may be trained to its end
    again, with other weights.

    Raises:
        RunError: a part could not be exported; the state is kept, and a resumed run tries
            again.
    """
    # Rank 0 decides for all: shared file systems may show files late on other machines.
    missing: dict[Part, str | None] = broadcast(_missing(run, token) if rank() == 0 else None)
    problems: dict[str, str] = {
        part: told
        for part, source in missing.items()
        if (told := problem_of(partial(_export, run, token, part, source)))
    }
    if not problems and (told := problem_of(partial(_note, run, token))):
        problems = {"manifest.json": told}
    if problems:
        raise RunError(
            f"stage {run.stage.name} is trained and its state is in {run.folder.state}, but not everything could be"
            " exported:"
            + "".join(f"\n  {name}: {told}" for name, told in problems.items())
            + "\nOnce that is repaired, --resume exports what is missing and goes on; no step is repeated"
        )


def _missing(run: StageRun, token: str) -> dict[Part, str | None]:
    """Parts that are not exported yet, with the folder of the same weights where there is one."""
    done = _done(run, token)
    target = run.folder.stage(run.index, run.stage.name)
    return {
        part: _same(run, part)
        for part in run.stage.save
        if part not in done or _signature(target / part) != done[part]["files"]
    }


def same_weights(recipe: Recipe, index: int, part: Part) -> list[int]:
    """Earlier stages, the last first, that save `part` with the very weights that it has after
    stage `index`.
    """
    found = []
    for number in range(index, 0, -1):
        stage = recipe.stages[number]
        trained = part in stage.train and stage.train[part].lr > 0
        if trained or stage.start_from.get(part, "previous") != "previous":
            break
        if part in recipe.stages[number - 1].save:
            found.append(number - 1)
    return found


def _same(run: StageRun, part: Part) -> str | None:
    """Folder of an earlier stage that holds the same weights and is as it was written, if there
    is one.
    """
    for number in same_weights(run.recipe, run.index, part):
        folder = run.folder.stage(number, run.recipe.stages[number].name) / part
        known = _record(run.folder).get(str(number), {}).get("parts", {}).get(part)
        if known and _signature(folder) == known["files"]:
            return str(folder)
    return None


def _export(run: StageRun, token: str, part: Part, source: str | None) -> None:
    target = run.folder.stage(run.index, run.stage.name) / part
    remote = run.recipe.model.trust_remote_code
    linked = source is not None and not problem_of(
        lambda: save_part(run.bundle, part, target, same_as=Path(source), trust_remote_code=remote)
    )
    if not linked:
        # The linked files may have been changed from outside: then they fail the proof, and the
        # part is written.
        save_part(run.bundle, part, target, trust_remote_code=remote)
    if rank() == 0:
        unchanged = str(Path(source).relative_to(run.folder.path)) if source and linked else None
        _remember(run, token, part, {"files": _signature(target), "unchanged": unchanged})


def _note(run: StageRun, token: str) -> None:
    if rank() != 0:
        return
    target = run.folder.stage(run.index, run.stage.name)
    done = _done(run, token)
    unchanged = {part: made["unchanged"] for part, made in done.items() if made["unchanged"]}
    # So that a copy of the folder is a model by itself, without the run's recipe.
    model = run.recipe.model.model_dump(mode="json", exclude=_OF_SOURCES)
    write_json(target / MODEL_FILE, {**model, "chat_date": run.bundle.day.isoformat()})
    note_stage(run.folder, run, {part: target / part for part in run.stage.save}, unchanged)


def problem_of(action: Callable[[], None]) -> str | None:
    """What went wrong on any process, as a sentence; the same on all of them."""
    told: str | None = None
    try:
        action()
    except FAILURES as error:
        told = reason(error) if not isinstance(error, SailvitError) else str(error)
    # One answer for all, or a process would wait alone in the next collective.
    return next((text for text in gather_objects(told) if text), None)


def _signature(folder: Path) -> dict[str, list[int]] | None:
    """Size and time of a part's files, which hard links share; None without the folder."""
    if not folder.is_dir():
        return None
    # No checksums: they would read all parts again at every stage's end.
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in files
    }


def _done(run: StageRun, token: str) -> dict[str, Any]:
    """The notes on the stage's parts, as far as they are of the completion `token`."""
    known = _record(run.folder).get(str(run.index), {})
    parts: dict[str, Any] = known.get("parts", {}) if known.get("token") == token else {}
    return parts


def _remember(run: StageRun, token: str, part: Part, made: dict[str, Any]) -> None:
    parts = {**_done(run, token), part: made}
    own = {str(run.index): {"token": token, "parts": parts}}
    write_json(_path(run.folder), {**_record(run.folder), **own})


def _record(folder: RunFolder) -> dict[str, Any]:
    with suppress(RunError):
        found: dict[str, Any] = read_json(_path(folder))
        return found
    return {}


def _path(folder: RunFolder) -> Path:
    return folder.state / "exported.json"

"""What a cell's file holds, and how a cell that was done again is compared with its file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from sailvit.api.study.lineage import Lineage, PlannedCell, Training
from sailvit.core.errors import RunError
from sailvit.core.ownership import manifest_of
from sailvit.core.run import read_json, write_json
from sailvit.core.study.definition import Study
from sailvit.core.study.folder import DONE, FAILED, StudyFolder
from sailvit.core.version import __version__
from sailvit.evaluation.studies.versions import made_by
from sailvit.training.output.manifest import machine, versions


def file_of(folder: StudyFolder, each: PlannedCell) -> dict[str, Any] | None:
    """The file of a cell that was measured, be it of the study as it is now or of an earlier
    one; None where there is none.

    Raises:
        RunError: the file is no cell's.
    """
    path = folder.cell(each.cell.name)
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("cell") != each.cell.name:
        raise RunError(f"{path} is no cell of a study; move it elsewhere, or choose another --out")
    return found if found.get("status") == DONE else None


def is_done(folder: StudyFolder, each: PlannedCell) -> bool:
    """Whether a cell's file is there, and is of what the study is now."""
    found = file_of(folder, each)
    return found is not None and found.get("key") == each.key


def renew_version(folder: StudyFolder, study: Study, each: PlannedCell) -> None:
    """Say in the file of a cell that is done what the study now says of it.

    The same trainings can be written otherwise, with another setting that changes no number, say.
    """
    path, now = folder.cell(each.cell.name), made_by(study, each.cell)
    held = read_json(path)
    if held.get("made by") != now:
        write_json(path, {**held, "made by": now})


def write_measured(
    folder: StudyFolder, lineage: Lineage, each: PlannedCell, values: Mapping[str, Any]
) -> str:
    """Write a measured cell; how it compares with what its file held before, if anything.

    A file of the same study is kept: others may have committed it. A cell that differs from it
    is written below the folder of trainings instead.
    """
    path, before = folder.cell(each.cell.name), file_of(folder, each)
    made = cell_record(lineage, each, DONE, values=dict(values))
    if before is None:
        write_json(path, made)
        return ""
    told = compared(each, before["values"], values)
    if before["key"] != each.key:
        write_json(path, made)
        return f"{told}. The study has changed since, so that the file is replaced"
    if before["values"] == made["values"]:
        return f"{told}. The file stays as it is"
    beside = StudyFolder(lineage.runs).cell(each.cell.name)
    write_json(beside, made)
    versions_before = before.get("versions", {})
    changed = [name for name, now in made["versions"].items() if versions_before.get(name) != now]
    why = f" (other versions here: {', '.join(changed)})" if changed else ""
    return f"{told}{why}. The file is kept; this cell is in {beside}"


def write_failed(folder: StudyFolder, lineage: Lineage, each: PlannedCell, reason: str) -> None:
    """Write why a cell failed; the file of a cell that once was measured is kept."""
    # A cell that is done again and fails says nothing against the one that is there.
    kept = StudyFolder(lineage.runs) if is_done(folder, each) else folder
    write_json(kept.cell(each.cell.name), cell_record(lineage, each, FAILED, reason=reason))


def compared(each: PlannedCell, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Every measure's value now and in the file, with their difference."""
    told = []
    for name, measure in each.measures.items():
        if name not in before:
            continue
        unit = measure.unit
        here, there = (unit.scale * side[name]["mean"] for side in (now, before))
        digits = unit.digits + 1
        told.append(
            f"{name} {here:.{digits}f} {unit.name}, {there:.{digits}f} in the file"
            f" ({here - there:+.{digits}f})"
        )
    return "; ".join(told) or "its file holds none of these measures"


def cell_record(lineage: Lineage, each: PlannedCell, status: str, **more: Any) -> dict[str, Any]:
    """The value of a cell's file."""
    return {
        "sailvit": __version__,
        "study": lineage.study.name,
        "cell": each.cell.name,
        "key": each.key,
        "made by": made_by(lineage.study, each.cell),
        "levels": dict(each.cell.levels),
        "seed": each.cell.seed,
        "status": status,
        **more,
        "trainings": [_trained_as(lineage, lineage.trainings[key]) for key in each.trainings],
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
    }


def _trained_as(lineage: Lineage, training: Training) -> dict[str, Any]:
    """What a cell's file says of one of its trainings."""
    ended = manifest_of(lineage.run(training).path).get("stages") or [{}]
    kept = ("steps", "samples", "tokens", "seconds")
    return {"name": training.folder, **{k: ended[0][k] for k in kept if k in ended[0]}}

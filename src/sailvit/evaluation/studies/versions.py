"""Which cells' files are of the study as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sailvit.core.study.cells import Cell, cells_of
from sailvit.core.study.definition import Study
from sailvit.core.study.folder import DONE
from sailvit.core.study.paths import with_paths
from sailvit.data.lengths.fingerprints import digest
from sailvit.evaluation.studies.differences import Values


def made_by(study: Study, cell: Cell) -> dict[str, Any]:
    """Hashes of what the study says of a cell: of its trainings together, and of each measure.

    They know what a recipe is called and not what is in it: that is in a cell's `key`, which only
    who has the recipes and their data can make again.
    """
    # A study may lie in another folder on another machine: names alone are told apart.
    document = with_paths(study, lambda text: Path(text).name).model_dump(mode="json")
    changes = [document["factors"][factor][level] for factor, level in cell.levels]
    parts = [document[name] for name in ("set", "towers", "languages", "steps")]
    measures = study.measured(dict(cell.levels))
    told = {name: document["measures"][name] for name in measures}
    return {
        "trainings": digest([*parts, changes, cell.seed]),
        # Where else a measure is taken changes no number of this cell.
        "measures": {name: digest({**each, "over": None}) for name, each in told.items()},
    }


def current_files(study: Study, files: Mapping[str, Values]) -> dict[str, Values]:
    """Of cells' files by name those whose trainings are still the study's, without the values of
    measures that it now takes in another way. A file that does not say is taken as it is.
    """
    cells = {cell.name: cell for cell in cells_of(study)}
    found = {name: _current(made_by(study, cells[name]), file) for name, file in files.items()}
    return {name: file for name, file in found.items() if file is not None}


def _current(now: Mapping[str, Any], file: Values) -> Values | None:
    then = file.get("made by")
    if then is None:
        return file
    if then["trainings"] != now["trainings"]:
        return None
    if file["status"] != DONE:
        return file
    same = {
        name: values
        for name, values in file["values"].items()
        if then["measures"].get(name) == now["measures"].get(name)
    }
    return {**file, "values": same}

"""A study from its file to its report, for the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sailvit.api.study.alike import alike_levels
from sailvit.api.study.lineage import Lineage, PlannedCell
from sailvit.api.study.planning import StudyPlan, plan_study
from sailvit.api.study.running import Event, StudyRun
from sailvit.api.study.workers import LocalWorkers, Workers
from sailvit.core.errors import RecipeError
from sailvit.core.run import write_json
from sailvit.core.study.cells import Cell, cells_of, shard_of
from sailvit.core.study.definition import Study
from sailvit.core.study.folder import StudyFolder
from sailvit.evaluation.studies.results import results
from sailvit.recipes.problems import nearest
from sailvit.report.study import write_study_report


def chosen_cells(study: Study, names: Sequence[str], shard: tuple[int, int] | None) -> list[Cell]:
    """The cells of these names, or of this shard; all where none are given.

    Raises:
        RecipeError: the study has no cell of that name.
    """
    cells = cells_of(study)
    known = {cell.name: cell for cell in cells}
    if wrong := [name for name in names if name not in known]:
        raise RecipeError(f"study {study.name} has no cell {wrong[0]}; {nearest(wrong[0], known)}")
    if names:
        return [known[name] for name in names]
    return shard_of(cells, *shard) if shard else cells


def prepared(study: Study, cells: Sequence[Cell], runs: Path) -> tuple[Lineage, list[PlannedCell]]:
    """The trainings that cells need, and which cell needs which.

    Raises:
        RecipeError: a level makes a recipe that is not valid; the message names the cell.
    """
    lineage, planned = Lineage(study, runs), []
    for cell in cells:
        try:
            planned.append(lineage.add(cell))
        except RecipeError as error:
            raise RecipeError(f"cell {cell.name}: {error}") from error
    return lineage, planned


def run_study(
    study: Study,
    folder: StudyFolder,
    runs: Path,
    cells: Sequence[Cell],
    *,
    workers: Workers[Any] | None = None,
    again: bool = False,
    seen: Callable[[Event], None] = lambda event: None,
    warned: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Train and measure what is missing of `cells`, and write the study's report; returns its
    numbers.

    Failed cells stay in the report with their reasons, and are tried again by the next call.
    Without `workers`, processes of this machine train. With `again`, cells that are there are
    measured again and compared with their files. `warned` is told of levels that make the same
    trainings.
    """
    folder.begin(study)
    lineage, planned = prepared(study, cells, runs)
    for sentence in alike_levels(study, planned):
        warned(sentence)
    StudyRun(lineage, planned, folder, workers or LocalWorkers(), seen, again).run()
    return report_study(folder, study)


def report_study(folder: StudyFolder, study: Study | None = None) -> dict[str, Any]:
    """Write the report from the cells' files alone; returns its numbers."""
    found = results(study or folder.study(), folder.read_cells())
    write_json(folder.results, found)
    write_study_report(folder.results)
    return found


def plan_cells(study: Study, folder: StudyFolder, runs: Path, cells: Sequence[Cell]) -> StudyPlan:
    """The plan of some cells."""
    return plan_study(*prepared(study, cells, runs), folder)

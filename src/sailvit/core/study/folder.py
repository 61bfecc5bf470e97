"""A study's folder: its definition, and one small JSON for every cell, which are all that its
report is made of.

study.json       the study
cells/NAME.json  a cell: its levels, seed, scores and answers, or why it failed
report/          tables, plots and sentences
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sailvit.core.errors import RunError
from sailvit.core.outputs import refuse_foreign_folder
from sailvit.core.run import read_json, write_json
from sailvit.core.study.definition import Study
from sailvit.core.study.paths import absolute, relative
from sailvit.core.version import __version__

DONE = "done"
"""Status of a cell that was measured."""
FAILED = "failed"
"""Status of a cell that could not be trained or measured."""


@dataclass(frozen=True)
class StudyFolder:
    """Paths and readers of one study."""

    path: Path
    """The folder itself."""

    @property
    def definition(self) -> Path:
        """The study, as it was when cells were last run."""
        return self.path / "study.json"

    @property
    def cells(self) -> Path:
        """The folder of the cells' files."""
        return self.path / "cells"

    @property
    def results(self) -> Path:
        """Every number of the report."""
        return self.path / "report" / "results.json"

    def cell(self, name: str) -> Path:
        """The file of a cell."""
        return self.cells / f"{name}.json"

    def begin(self, study: Study) -> None:
        """Write the study's definition.

        Raises:
            RunError: the folder holds other files, or another study.
        """
        refuse_foreign_folder(self.path, self.definition.name)
        if self.definition.is_file() and (known := self.study().name) != study.name:
            raise RunError(
                f"{self.path} holds study {known}, and this is {study.name}; give another folder"
                " with --out"
            )
        told = relative(study, self.path).model_dump(mode="json")
        value = {"sailvit": __version__, "study": told}
        write_json(self.definition, value)

    def study(self) -> Study:
        """The study that the folder holds; RunError when there is none."""
        if not self.definition.is_file():
            raise RunError(
                f"{self.path} has no study.json; expected the folder of a study, as `sailvit study`"
                " writes it"
            )
        held = Study.model_validate(read_json(self.definition)["study"])
        return absolute(held, self.path)

    def read_cells(self) -> list[dict[str, Any]]:
        """Every cell that is there, by name."""
        return [read_json(path) for path in sorted(self.cells.glob("*.json"))]

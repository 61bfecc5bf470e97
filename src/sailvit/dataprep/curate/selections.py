"""A selection: a folder that says which records of a source to read, and why the others were
dropped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sailvit.core.errors import RunError
from sailvit.core.outputs import refuse_foreign_folder
from sailvit.core.ownership import others
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Source
from sailvit.data.sources.selected import POSITIONS, SOURCE
from sailvit.dataprep.curate.curating import Curated

REPORT = "report.json"
"""Name of the report: counts, reasons and examples."""


def write_selection(folder: Path, config: SourceConfig, source: Source, curated: Curated) -> None:
    """Write a selection, which format `selected` reads, and the report; data are not copied.

    The source's paths are written as absolute paths: the selection may be moved, the data not.
    """
    refuse_foreign_selection(folder)
    folder.mkdir(parents=True, exist_ok=True)
    absolute = {
        name: None if value is None else _absolute(value)
        for name in ("path", "images")
        for value in [getattr(config, name)]
    }
    inner = config.model_copy(update=absolute).model_dump()
    np.save(folder / POSITIONS, curated.positions.astype(np.int64), allow_pickle=False)
    _write(folder / REPORT, curated.report)
    # Written last: a folder that has it is whole.
    _write(
        folder / SOURCE,
        {"source": inner, "fingerprint": source.fingerprint, "records": len(source)},
    )


def refuse_foreign_selection(folder: Path) -> None:
    """Raise RunError for a folder that holds anything else than a selection, which may be
    written again.
    """
    refuse_foreign_folder(folder, SOURCE)
    if folder.is_dir() and (found := set(others(folder)) - {POSITIONS, REPORT, SOURCE}):
        raise RunError(
            f"{folder} holds {', '.join(sorted(found)[:5])} beside a selection; give an empty or a"
            " new folder"
        )


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")

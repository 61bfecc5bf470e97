"""The page of evidence and its picture once a study has cells; how they are now is a test of the docs."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from sailvit.core.run import write_json
from sailvit.core.study.cells import cells_of
from sailvit.core.study.folder import StudyFolder
from sailvit.recipes.studies import load_study
from tiny_studies import cell, definition

ROOT = Path(__file__).parents[1]
MEANS = {"base": 0.4, "gradual": 0.6, "joint": 0.5}


def loaded(path: str) -> ModuleType:
    spec = spec_from_file_location("evidence", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of which all cells but one are measured, in a repository of its own."""
    claims = [
        {"says": "Refined is better.", "over": ["data"]},
        {"says": "Refined reads better.", "measure": "reading"},
    ]
    reading = {"of": "refine", "over": []}
    path = tmp_path / "studies" / "demo.yaml"
    path.parent.mkdir()
    measures = {"world": {"of": "target"}, "reading": reading}
    path.write_text(yaml.safe_dump(definition(claims=claims, measures=measures), sort_keys=False))
    given, folder = load_study(path), StudyFolder(path.with_suffix(""))
    for number, each in enumerate(cells_of(given)[1:]):
        levels = dict(each.levels)
        mean = MEANS[levels["arm"]] + 0.1 * (number % 2)
        write_json(folder.cell(each.name), cell(levels, each.seed, mean, name=each.name))
    return path


def test_claims_and_tables_come_from_the_cells(study: Path):
    evidence = loaded("benchmarks/evidence.py")
    evidence.ROOT = study.parents[1]
    text = evidence.claims("demo")
    assert text.startswith("28 of 29 cells of `studies/demo.yaml` are measured.")
    assert "| Refined is better. | **holds** | by default +" in text
    assert "| Refined reads better. | not measured yet |  |" in text
    tables = evidence.dimensions("demo")
    assert "| gradual, data half | " in tables
    assert "reading" not in tables
    assert re.search(r"\| gradual \| 4\d\.\d \| 6\d\.\d \| \+", tables)


def test_every_task_has_a_gain_with_its_own_interval(study: Path):
    evidence = loaded("benchmarks/evidence.py")
    evidence.ROOT = study.parents[1]
    folder = StudyFolder(study.with_suffix(""))
    for each in cells_of(load_study(study)):
        folder.cell(each.name).unlink(missing_ok=True)
        score = 0.25 + (0.1 * (1 + each.seed) if dict(each.levels)["arm"] == "gradual" else 0.0)
        if each.seed < 3:
            made = cell(dict(each.levels), each.seed, score, name=each.name)
            made["values"]["world"]["scores"] = {"colour": score, "shape": 0.5}
            write_json(folder.cell(each.name), made)
    lines = evidence.by_task("demo").splitlines()
    # Student's t of two degrees of freedom: 4.30 standard errors of 10 / sqrt(3) points.
    assert "| colour | 25.0 | 45.0 | +20.0 | -4.8 to +44.8 |" in lines
    assert "| shape | 50.0 | 50.0 | +0.0 | +0.0 to +0.0 |" in lines


def test_a_grid_has_a_row_per_setting_and_bold_where_a_difference_is_shown(study: Path):
    evidence = loaded("benchmarks/evidence.py")
    evidence.ROOT = study.parents[1]
    lines = evidence.grid("demo", "world").splitlines()
    assert lines[0] == "| data and tower | gradual | joint |"
    # The defaults come first; every other level was asked of the default arm alone.
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        *("full, trained", "full, frozen"),
        *("half, trained", "double, trained"),
    ]
    gained = lines[2].split("|")[2].strip()
    assert re.fullmatch(r"\*\*\+\d\d\.\d\*\*", gained)
    assert lines[4].split("|")[3].strip() == ""


def test_the_picture_has_a_row_for_every_difference(study: Path):
    picture = loaded("docs/pictures/evidence.py")
    picture.STUDY = study
    rows = picture.rows()
    # Both other arms, then two further amounts of data and the frozen tower.
    assert [name for name, _ in rows] == [
        *("gradual", "joint"),
        *("data half", "data double", "tower frozen"),
    ]
    drawn = picture.draw(rows)
    assert drawn.count("<circle") == 5
    places = [float(x) for x in re.findall(r"cx='([\d.]+)'", drawn)]
    # Further to the right where the difference is larger.
    assert places[0] > places[1]

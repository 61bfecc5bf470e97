"""Every family of languages: each column of the table in docs/languages.md, at tiny random size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import language_cells
import pytest
import torch
from changed_runs import CLOSE, told_apart
from language_cells import COLUMNS, FAMILIES, LAYOUTS, Place
from transformers import PreTrainedModel

from sailvit.core.errors import ModelError, SailvitError
from sailvit.models.guards.errors import FOREIGN

QUICK = {
    "llama": ["hf", "llava"],
    "qwen3_moe": ["hf", "llava"],
    "lfm2": ["hf", "llava"],
    "gemma2": ["hf"],
    "mamba2": ["hf"],
}
"""One of each kind, with its exports: plain, experts, convolutions, tied with capped scores, state space."""
EXPORTS = {**QUICK, "gpt2": ["llava"], "llama4_text": ["hf", "llava"]}
"""Two more: a tied table of another name, and a class that names its base model otherwise."""
PAGE = Path(__file__).parents[3] / "docs" / "languages.md"


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    made = Place(tmp_path, request.node.callspec.params["family"])
    language_cells.load(made)
    return made


@pytest.mark.parametrize("column", ["recompute", "shard"])
@pytest.mark.parametrize("family", QUICK)
def test_recompute_and_shards_change_nothing(family: str, column: str, place: Place):
    found = COLUMNS[column](place)
    assert found == "equal" or float(found) <= CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("family", QUICK)
def test_compiled_blocks_change_nothing(family: str, place: Place):
    found = language_cells.compiled(place)
    assert found == "equal" or float(found) <= CLOSE


@pytest.mark.parametrize("family", QUICK)
def test_three_stages_train_and_save_what_is_in_memory(family: str, place: Place):
    assert language_cells.reload(place, language_cells.stages(place)) == "equal"


@pytest.mark.parametrize(
    ("family", "layout"), [(family, layout) for family in EXPORTS for layout in EXPORTS[family]]
)
def test_exports_give_the_same(family: str, layout: str, place: Place):
    assert language_cells.export(place, layout) == layout


def test_an_export_whose_answers_would_differ_is_refused(tmp_path: Path):
    """transformers' generate takes no embeddings for Bamba, which images are."""
    place = Place(tmp_path, "bamba")
    language_cells.load(place)
    with pytest.raises(ModelError, match=r"gives other answers with BambaForCausalLM .*--to tower"):
        language_cells.export(place, "hf")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_says_what_is_so(family: str, tmp_path: Path):
    said = lines()[family]
    if said["way"].startswith("no"):
        return
    place = Place(tmp_path, family)
    language_cells.load(place)
    for column, cell in COLUMNS.items():
        if said[column] != "-":
            assert holds(lambda cell=cell: cell(place)) != said[column].startswith("no"), column
    if said["stages"] != "-":
        trained: list[PreTrainedModel] = []
        done = holds(lambda: trained.append(language_cells.stages(place)))
        assert done == (said["stages"] == "yes")
        reloaded = done and holds(lambda: language_cells.reload(place, trained[0]))
        assert reloaded == (said["reload"] == "equal")
    if said["export"] != "-":
        held = [name for name in LAYOUTS if holds(partial(language_cells.export, place, name))]
        assert said["export"].partition(" (")[0] == (", ".join(held) or "no")


def lines() -> dict[str, dict[str, str]]:
    """The page's cells, by family and column."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}


def holds(cell: Callable[[], object]) -> bool:
    """Whether a cell's own checks pass."""
    try:
        cell()
    except (*FOREIGN, SailvitError):
        return False
    return True


def test_a_difference_is_seen():
    one = torch.tensor([1.0, 2.0])
    assert told_apart([one, None], [one.clone(), None]) == "equal"
    assert told_apart([one], [one + 1e-5]) == "5e-06"
    assert told_apart([one, one, 0 * one], [one, one, 0 * one + 1e-8]) == "5e-06"
    with pytest.raises(AssertionError, match="differs by"):
        told_apart([one], [one + 1e-3])
    with pytest.raises(AssertionError):
        told_apart([one], [None])

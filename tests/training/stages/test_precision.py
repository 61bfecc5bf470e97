"""A recipe that leaves the precision to the device, and a run that keeps what it was started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder, read_json
from sailvit.models.measures import peak
from sailvit.models.measures.peak import faster_in_bf16
from sailvit.training.stages import precision as module
from sailvit.training.stages.precision import precision_note, settled
from sailvit.training.trainer import Trainer
from tiny_parts import Parts
from tiny_runs import recipe, stage, train, write_data

CPU = torch.device("cpu")


@pytest.fixture
def made(parts: Parts, tmp_path: Path) -> Recipe:
    whole = recipe(parts, write_data(tmp_path / "data"), [stage()])
    return whole.model_copy(update={"precision": "auto"})


@pytest.mark.parametrize(
    ("bf16", "fp32", "expected"), [(800.0, 200.0, True), (200.0, 190.0, False), (1.2, 69.0, False)]
)
def test_bf16_is_taken_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, bf16: float, fp32: float, expected: bool
):
    rates = {torch.bfloat16: bf16, torch.float32: fp32}
    monkeypatch.setattr(peak, "matmul_rate", lambda device, dtype, *rest: rates[dtype])
    assert faster_in_bf16(CPU) is expected


def test_what_this_cpu_does_is_measured():
    threads = torch.get_num_threads()
    assert len({faster_in_bf16(CPU) for _ in range(3)}) == 1
    assert torch.get_num_threads() == threads
    assert peak.matmul_rate(CPU, torch.float32, 0.0, 64) > 0


@pytest.mark.parametrize(("faster", "taken"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_settled_by_the_device(
    monkeypatch: pytest.MonkeyPatch, made: Recipe, faster: bool, taken: str
):
    monkeypatch.setattr(module, "faster_in_bf16", lambda device: faster)
    found = settled(made, CPU)
    assert found == made.model_copy(update={"precision": taken})
    assert (precision_note(made, found) is None) == faster
    given = made.model_copy(update={"precision": "bf16"})
    assert settled(given, CPU) is given
    assert precision_note(given, given) is None


def test_a_run_goes_on_in_the_precision_that_it_began_in(
    monkeypatch: pytest.MonkeyPatch, made: Recipe, tmp_path: Path
):
    monkeypatch.setattr(module, "faster_in_bf16", lambda device: False)
    run = RunFolder(tmp_path / "run")
    told: list[dict[str, Any]] = []
    Trainer(made, run, announce=told.append).run()
    assert read_json(run.manifest)["recipe"]["precision"] == "fp32"
    assert sum("precision: fp32" in line.get("note", "") for line in told) == 1
    monkeypatch.setattr(module, "faster_in_bf16", lambda device: True)
    assert Trainer(made, run).recipe.precision == "fp32"
    assert train(made, tmp_path / "other") is not None
    assert read_json(tmp_path / "other/manifest.json")["recipe"]["precision"] == "bf16"

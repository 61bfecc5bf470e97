"""A run in native resolution: three stages, monitoring, going on after a stop, and its answers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from sailvit.api.models import load_run
from sailvit.core.errors import InterruptedRunError
from sailvit.core.recipe import Recipe
from sailvit.recipes.loader import dump_recipe
from sailvit.training import trainer as module
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts, picture
from tiny_runs import lines, recipe, three_stages, train, weights, write_data

SIZES = ((40, 30), (90, 20), (16, 70), (1, 1), (33, 32), (200, 200))


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)


class Stop(Callback):
    """Ends the run in the middle of the second stage."""

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        if (record.stage_index, record.step) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def made(parts: Parts, tmp_path: Path) -> Recipe:
    sources = write_data(tmp_path / "data")
    for index, size in enumerate(SIZES):
        Image.fromarray(picture(index, *size)).save(tmp_path / "data/images" / f"{index}.png")
    model = parts.config("aimv2", image={"mode": "native", "max_patches": 64}).model_dump()
    monitoring = {"every": 2, "tiles": 4, "loggers": []}
    return recipe(parts, sources, three_stages(), model=model, monitoring=monitoring)


def test_a_run_trains_all_parts_and_answers(made: Recipe, tmp_path: Path):
    folder = tmp_path / "run"
    before = train(made, folder)
    (folder / "recipe.yaml").write_text(dump_recipe(made))
    steps = lines(folder / "metrics.jsonl")
    assert all(0 < step["mfu"] < 1 for step in steps)
    points = [json.loads(line) for line in (folder / "monitoring.jsonl").read_text().splitlines()]
    assert points[0]["cka"] == pytest.approx(1, abs=1e-4)
    model = load_run(folder)
    assert model.bundle.layout == before.layout
    given = Image.fromarray(picture(9, 120, 25))
    alone = model.generate(given, "what colour?", max_new_tokens=4)
    pair = model.generate([given, Image.fromarray(picture(8, 9, 90))], ["what colour?"] * 2)
    assert pair[0].startswith(alone)


def test_a_stopped_run_goes_on_bit_for_bit(made: Recipe, tmp_path: Path):
    whole = weights(train(made, tmp_path / "whole"))
    with pytest.raises(InterruptedRunError):
        train(made, tmp_path / "parts", Stop())
    found = weights(train(made, tmp_path / "parts", resume=True))
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())

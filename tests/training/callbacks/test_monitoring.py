"""Watching a run: what is written when, that it costs what it may, and that training does not notice."""

from __future__ import annotations

import math
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import ViTConfig

from sailvit.core.errors import InterruptedRunError
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder
from sailvit.training import trainer as module
from sailvit.training.callbacks.monitoring import Budget, MonitoringCallback, logged_values
from sailvit.training.monitoring.monitored import MonitoringData
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from sailvit.training.trainer import Trainer
from tiny_parts import TOWERS, Parts, save_tower
from tiny_runs import (
    Record,
    lines,
    recipe,
    stage,
    stage_run,
    three_stages,
    train,
    weights,
    write_data,
)

ALWAYS = {"every": 2, "share": None}
TIMES = ("seconds", "wait", "samples_per_s", "answer_tokens_per_s", "mfu", "share")


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def watched(parts: Parts, sources: dict[str, Any]) -> Recipe:
    return recipe(parts, sources, three_stages(), monitoring=ALWAYS)


@pytest.fixture(scope="module")
def whole(
    watched: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, torch.Tensor], Record]:
    folder, seen = tmp_path_factory.mktemp("watched"), Record()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "device_peak", lambda *_: 1e12)
        return folder, weights(train(watched, folder, seen)), seen


class Stop(Callback):
    """Asks to stop after a step."""

    def __init__(self, index: int, step: int) -> None:
        self.place = index, step

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        if (record.stage_index, record.step) == self.place:
            signal.raise_signal(signal.SIGTERM)


def measured(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines(path)]


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def test_points_are_at_the_cadence_and_where_stages_start_and_end(whole: tuple):
    folder, _, seen = whole
    places = [(line["stage_index"], line["step"]) for line in lines(folder / "monitoring.jsonl")]
    steps = [[r.step for r in seen.records if r.stage_index == index] for index in range(3)]
    assert places == [
        (index, step)
        for index in range(3)
        for step in (0, *steps[index])
        if step % 2 == 0 or step == steps[index][-1]
    ]


def test_a_stage_starts_where_the_one_before_ended_and_is_not_measured_twice(whole: tuple):
    written = lines(whole[0] / "monitoring.jsonl")
    for before, after in pairwise(written):
        if after["stage_index"] > before["stage_index"]:
            names = ("cka", "perplexity", "affinity")
            assert [after[name] for name in names] == [before[name] for name in names]
            assert after["step"] == after["seconds"] == 0


def test_a_stage_that_starts_from_other_weights_is_measured_anew(
    parts: Parts, sources: dict, tmp_path: Path
):
    stages = [stage(), stage(name="again", start_from={"tower": "recipe"})]
    train(recipe(parts, sources, stages, monitoring=ALWAYS), tmp_path)
    started = [line for line in lines(tmp_path / "monitoring.jsonl") if line["step"] == 0]
    assert [line["cka"] for line in started] == pytest.approx([1, 1], abs=1e-9)
    assert started[1]["seconds"] > 0


def test_lines_say_what_the_stages_did(whole: tuple):
    folder, _, seen = whole
    written = lines(folder / "monitoring.jsonl")
    assert written[0]["monitored"] == {"tiles": 12, "texts": 13, "texts_from": "records"}
    coarse = [line for line in written if line["stage"] == "coarse"]
    assert all(line["cka"] == pytest.approx(1, abs=1e-9) for line in coarse), "the tower is frozen"
    assert written[-1]["cka"] < 1 - 1e-6
    assert len({line["perplexity"] for line in written if line["stage"] != "world"}) == 1, (
        "the language is frozen"
    )
    assert written[-1]["perplexity"] != written[0]["perplexity"]
    assert written[-1]["affinity"].keys() == {"nearest", "wasserstein", "mean"}
    assert written[-1]["affinity"] != written[0]["affinity"]
    norms = {(r.stage_index, r.step): r.grad_norm for r in seen.records}
    for line in written:
        if "gradient" in line:
            trained = set(next(r.lr for r in seen.records if r.stage_index == line["stage_index"]))
            assert set(line["gradient"]) == set(line["update"]) == trained
            joint = math.sqrt(sum(norm**2 for norm in line["gradient"].values()))
            assert joint == pytest.approx(norms[line["stage_index"], line["step"]], rel=1e-4), (
                "as before clipping"
            )
            assert all(0 < change < 0.1 for change in line["update"].values())


def test_curves_go_where_losses_go(whole: tuple):
    curves = EventAccumulator(str(whole[0] / "tensorboard")).Reload()
    named = set(curves.Tags()["scalars"])
    assert {
        "world/monitoring/cka",
        "world/monitoring/perplexity",
        "fine/monitoring/update/tower",
        "world/loss/next_token",
    } <= named
    last = lines(whole[0] / "monitoring.jsonl")[-1]
    assert curves.Scalars("world/monitoring/perplexity")[-1].value == pytest.approx(
        last["perplexity"]
    )
    assert logged_values({"cka": None, "perplexity": 2.0, "affinity": None, "seconds": 1.0, "share": 0.1}) == {
        "monitoring/perplexity": 2.0, "monitoring/seconds": 1.0, "monitoring/share": 0.1
    }  # fmt: skip


def test_training_gives_the_same_bits_without_it(whole: tuple, watched: Recipe, tmp_path: Path):
    plain = weights(
        train(
            watched.model_copy(
                update={"monitoring": watched.monitoring.model_copy(update={"every": None})}
            ),
            tmp_path,
        )
    )
    assert same(whole[1], plain)
    assert measured(whole[0] / "metrics.jsonl") == measured(tmp_path / "metrics.jsonl")
    assert not (tmp_path / "monitoring.jsonl").exists()
    assert not (tmp_path / "monitoring.safetensors").exists()


def test_nor_does_it_show_in_bf16_with_dropout_and_recomputation(
    parts: Parts, sources: dict, tmp_path: Path
):
    save_tower(
        ViTConfig(**{**TOWERS["vit"].to_dict(), "hidden_dropout_prob": 0.2}), tmp_path / "tower"
    )
    model = {"tower": str(tmp_path / "tower"), "language": parts.language("llama")}
    changes = {"model": model, "precision": "bf16", "parallel": {"recompute": {"tower": "full"}}}
    found = []
    for name, watch in (("with", {**ALWAYS, "every": 1}), ("without", {"every": None})):
        stages = [
            stage(
                objectives={"next_token": 1.0, "contrastive": 0.1},
                data=["captions", "chat"],
                global_batch=4,
            )
        ]
        found.append(
            weights(
                train(recipe(parts, sources, stages, monitoring=watch, **changes), tmp_path / name)
            )
        )
    assert same(*found)


@pytest.mark.parametrize("place", [(0, 1), (1, 2), (2, 1)])
def test_a_resumed_run_is_watched_as_if_nothing_had_happened(
    place: tuple[int, int], whole: tuple, watched: Recipe, tmp_path: Path
):
    with pytest.raises(InterruptedRunError):
        train(watched, tmp_path, Stop(*place))
    stopped = lines(tmp_path / "metrics.jsonl")[-1]
    base = (tmp_path / "monitoring.safetensors").read_bytes()
    assert same(weights(train(watched, tmp_path, resume=True)), whole[1])
    assert (tmp_path / "monitoring.safetensors").read_bytes() == base
    places = [(line["stage_index"], line["step"]) for line in lines(tmp_path / "monitoring.jsonl")]
    assert places == sorted(set(places))
    expected = {
        (line["stage_index"], line["step"]): line
        for line in measured(whole[0] / "monitoring.jsonl")
    }
    # The step after which the run stops is saved at once and not looked at.
    assert places == [
        there for there in expected if there != (stopped["stage_index"], stopped["step"])
    ]
    assert all(
        line == expected[line["stage_index"], line["step"]]
        for line in measured(tmp_path / "monitoring.jsonl")
    )


def test_a_run_killed_between_a_stages_last_point_and_its_end_does_not_repeat_the_point(
    parts: Parts, sources: dict, whole: tuple, tmp_path: Path
):
    class Lost(Callback):
        def stage_ended(self, stage_run: StageRun) -> None:
            raise KeyboardInterrupt

    # States at the cadence of points, so that the newest is one after a point.
    made = recipe(
        parts, sources, three_stages(), monitoring={**ALWAYS, "every": 1}, checkpoint={"every": 1}
    )
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path, Lost())
    train(made, tmp_path, resume=True)
    places = [(line["stage_index"], line["step"]) for line in lines(tmp_path / "monitoring.jsonl")]
    assert len(places) == len(set(places))
    assert {index for index, step in places if step == 0} == {0, 1, 2}


def test_a_lost_base_is_made_anew_and_said(watched: Recipe, tmp_path: Path):
    with pytest.raises(InterruptedRunError):
        train(watched, tmp_path, Stop(2, 1))
    (tmp_path / "monitoring.safetensors").unlink()
    said: list[dict[str, Any]] = []
    Trainer(watched, RunFolder(tmp_path), announce=said.append).run(resume=True)
    assert any("monitoring.safetensors is missing" in line.get("note", "") for line in said)
    again = [line for line in lines(tmp_path / "monitoring.jsonl") if "monitored" in line]
    assert [(line["stage_index"], line["step"]) for line in again] == [(0, 0), (2, 2)]
    assert again[1]["cka"] == pytest.approx(1)


def test_a_step_that_is_skipped_is_not_looked_at(parts: Parts, sources: dict, tmp_path: Path):
    class Poison(Callback):
        def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
            frozen = stage_run.model.tower.model.post_layernorm.bias.data
            frozen.fill_(math.nan if stage_run.step == 1 else 0.0)

    stages = [
        stage(train={"connector": 1.0}, data=["captions"], length={"samples": 16}, global_batch=1)
    ]
    made = recipe(parts, sources, stages, monitoring={"every": 2, "share": None}, proof_steps=100)
    train(made, tmp_path, Poison())
    skipped = [line["step"] for line in lines(tmp_path / "metrics.jsonl") if line["skipped"]]
    assert skipped == [2]
    assert 2 not in [line["step"] for line in lines(tmp_path / "monitoring.jsonl")]


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_looks_stretch_so_that_they_stay_within_their_share():
    clock = Clock()
    budget, taken = Budget(0.02, clock), []
    for step in range(10_000):
        clock.now += 0.1
        if step % 10 == 0 and budget.allows():
            budget.begin()
            with budget.spend():
                clock.now += 0.3
            taken.append(step)
        assert budget.used <= 0.02 or len(taken) <= 1
    assert budget.used == pytest.approx(0.02, abs=0.002)
    assert {later - sooner for sooner, later in pairwise(taken[5:])} <= {140, 150, 160}


def test_cheap_looks_keep_the_cadence_and_no_share_means_no_limit():
    clock = Clock()
    cheap, free = Budget(0.02, clock), Budget(None, clock)
    for step in range(1000):
        clock.now += 0.1
        if step >= 10 and step % 10 == 0:
            assert cheap.allows()
            cheap.begin()
            with cheap.spend():
                clock.now += 0.001
        with free.spend():
            clock.now += 5
        assert free.allows()


def test_a_short_run_has_the_points_of_its_stages_and_no_more(
    parts: Parts, sources: dict, tmp_path: Path
):
    train(recipe(parts, sources, [stage()], monitoring={"every": 1, "share": 1e-9}), tmp_path)
    last = lines(tmp_path / "metrics.jsonl")[-1]["step"]
    assert [line["step"] for line in lines(tmp_path / "monitoring.jsonl")] == [0, last]


def test_without_images_and_texts_there_are_norms_alone(parts: Parts, tmp_path: Path):
    nothing = MonitoringData(torch.zeros(0, 3, 32, 32, dtype=torch.uint8), (), "built in")
    made = stage_run(parts.build(), stage(), tmp_path, monitoring={"every": 1})
    MonitoringCallback(lambda: nothing).stage_started(made)
    line = lines(tmp_path / "monitoring.jsonl")[0]
    assert (line["cka"], line["perplexity"], line["affinity"]) == (None, None, None)

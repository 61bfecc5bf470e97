"""The bench: every stage's figures agree with what was done, on real and on invented data."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sailvit.core.errors import ModelError
from sailvit.models.loading.build import build
from sailvit.preflight import bench as module
from sailvit.preflight.bench import bench, quick_speeds
from sailvit.preflight.plan import plan
from tiny_parts import Parts
from tiny_runs import recipe, three_stages, write_data

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fixed_peak(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "matmul_rate", lambda device, dtype: 1e9)


def test_every_stage_is_measured_on_its_own_data(parts: Parts, tmp_path: Path):
    made = recipe(parts, write_data(tmp_path), three_stages())
    speed = bench(made, device=CPU, steps=2, warmup=1)
    assert (speed.recipe, speed.device, speed.precision, speed.processes) == (
        "tiny",
        "cpu",
        "fp32",
        1,
    )
    assert (speed.measured_peak, speed.datasheet_peak, speed.invented) == (1e9, None, ())
    assert [stage.name for stage in speed.stages] == ["coarse", "fine", "world"]
    for stage in speed.stages:
        assert (stage.steps, stage.packs) == (2, 2)
        assert stage.mfu == pytest.approx(stage.flops_per_s / 1e9)
        assert stage.mfu_datasheet is None
        assert 0 <= stage.waiting <= 1
        assert stage.samples_per_s > 0
        assert stage.tokens_per_s > stage.answer_tokens_per_s > 0
        assert stage.peak_bytes > 1 << 20


def test_frozen_parts_cost_less(parts: Parts, tmp_path: Path):
    made = recipe(parts, write_data(tmp_path), three_stages())
    coarse, fine, _ = bench(made, device=CPU, steps=2, warmup=1).stages
    work = [stage.flops_per_s / stage.tiles_per_s for stage in (coarse, fine)]
    assert work[0] < work[1]


def test_sources_that_are_not_here_are_invented(parts: Parts, tmp_path: Path):
    sources = write_data(tmp_path)
    sources["captions"]["path"] = str(tmp_path / "elsewhere.jsonl")
    made = recipe(parts, sources, three_stages(), sequence=900)
    speed = bench(made, device=CPU, steps=1, warmup=1)
    assert speed.invented == ("captions",)
    assert all(stage.samples_per_s > 0 for stage in speed.stages)


def test_steps_hold_no_more_packs_than_asked_for_and_weights_of_the_recipe_are_not_needed(
    parts: Parts, tmp_path: Path
):
    stages = three_stages()[2:]
    stages[0]["global_batch"] = 480
    stages[0]["start_from"] = {"tower": str(tmp_path / "nowhere")}
    speed = bench(
        recipe(parts, write_data(tmp_path), stages), device=CPU, steps=1, warmup=1, packs=3
    )
    assert speed.stages[0].packs == 3


def test_a_model_that_does_not_fit_is_refused_before_it_is_made(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = recipe(parts, write_data(tmp_path), three_stages())
    mllm = build(made.model, weights="meta").mllm
    numbers, language = (
        sum(p.numel() for p in part.parameters()) for part in (mllm, mllm.language)
    )
    monkeypatch.setattr(
        module,
        "build",
        lambda config, *_, weights, **__: (
            build(config, weights="meta") if weights == "meta" else pytest.fail("weights were made")
        ),
    )
    monkeypatch.setattr(module, "free_memory", lambda device: 4 * numbers + 1)
    with pytest.raises(
        ModelError,
        match=r"stage coarse: weights, gradients and moments take .* MiB are free on cpu",
    ):
        bench(made, device=CPU, steps=1, warmup=1)
    monkeypatch.setattr(module, "free_memory", lambda device: 16 * numbers - 12 * language)
    with pytest.raises(ModelError, match="stage world"):
        bench(made, device=CPU, steps=1, warmup=1)


def test_a_limit_by_time_ends_every_stage_after_a_steady_step(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # A second passes whenever somebody looks at the clock.
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=count().__next__))
    made = recipe(parts, write_data(tmp_path), three_stages())
    short = bench(made, device=CPU, steps=10**6, warmup=2, seconds=0)
    assert [stage.steps for stage in short.stages] == [1, 1, 1]
    first = made.model_copy(update={"stages": made.stages[:1]})
    (longer,) = bench(first, device=CPU, steps=10**6, warmup=2, seconds=3).stages
    assert longer.steps == 3


@pytest.mark.parametrize(("speed", "packs"), [(1e15, 8), (1.0, 1)])
def test_quick_speeds_take_as_many_packs_as_the_expected_speed_allows(
    speed: float, packs: int, parts: Parts, tmp_path: Path
):
    stages = [{**stage, "global_batch": 16} for stage in three_stages()]
    made = recipe(parts, write_data(tmp_path), stages)
    speeds = quick_speeds(made, plan(made), speed, device=CPU, seconds=0.1)
    assert list(speeds) == ["coarse", "fine", "world"]
    assert {each.packs for each in speeds.values()} == {packs}
    assert all(each.flops_per_s > 0 for each in speeds.values())


def test_a_source_with_few_epochs_is_read_as_often_as_the_bench_needs(parts: Parts, tmp_path: Path):
    only = three_stages()[:1]
    only[0]["data"] = {"captions": {"share": 1, "epochs": 1}}
    speed = bench(recipe(parts, write_data(tmp_path), only), device=CPU, steps=4, warmup=2)
    assert speed.stages[0].steps == 4

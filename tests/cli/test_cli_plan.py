"""`sailvit plan`: what is printed and what the exit code says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from sailvit.cli.plan import plan
from sailvit.core.errors import ModelError
from sailvit.core.recipe import Recipe
from sailvit.preflight import bench as bench_module
from sailvit.preflight import plan as plan_module
from sailvit.preflight.plan import Plan
from tiny_parts import Parts
from tiny_runs import recipe, three_stages, write_data

app = typer.Typer()
app.command()(plan)


@pytest.fixture(scope="module", autouse=True)
def _planned_once() -> Iterator[None]:
    """Each recipe is planned once for all tests: they look at one plan in many widths."""
    real, known = plan_module.plan, dict[str, Plan]()

    def planned(made: Recipe) -> Plan:
        key = made.model_dump_json()
        if key not in known:
            known[key] = real(made)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "plan", planned)
        yield


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "140", "NO_COLOR": "1"})
    return result.exit_code, result.output


def test_a_shipped_recipe_is_shown_with_its_missing_files():
    code, text = run("sailvit-large", "--tflops", "989", "--devices", "8")
    assert code == 1
    for expected in (
        "310 M",
        "frozen",
        "256 visual tokens",
        "14.7 M",
        "1.20e+21",
        "4 d 9 h",
        "989 TFLOP/s (given)",
    ):
        assert expected in text
    assert text.count("problem sources.") == 5
    assert text.rstrip().endswith("5 problems, listed at the top")


def test_problems_are_the_exit_code():
    assert run("sailvit-large", "--tflops", "1")[0] == 1
    code, text = run("demo", "--tflops", "1")
    assert code == 0
    assert "problem" not in text


def test_overrides_and_measured_speed():
    code, text = run(
        "sailvit-large", "--set", "sequence=512", "--set", "stages.coarse.train.connector=0"
    )
    assert code == 1
    assert "measured here" in text
    assert "it trains nothing" in text
    assert "a pack holds 512" in text


def test_weights_are_loaded_and_proved_when_asked_for(monkeypatch: pytest.MonkeyPatch):
    """The proof itself has its own tests; here a model stands for the one that `build` gives."""
    asked = []

    def made(config, seed, packing):
        asked.append((config.language, seed, packing))
        return SimpleNamespace(mllm=SimpleNamespace(chosen="packing: rows (each sample ...)"))

    monkeypatch.setattr("sailvit.models.loading.build.build", made)
    code, text = run("demo", "--tflops", "1", "--weights", "--set", "parallel.packing=rows")
    assert (code, asked[0][2]) == (0, "rows")
    assert "packing: rows (each sample ...)" in text

    def refused(config, seed, packing):
        raise ModelError("FooForCausalLM cannot be trained on packs")

    monkeypatch.setattr("sailvit.models.loading.build.build", refused)
    code, text = run("demo", "--tflops", "1", "--weights")
    assert code == 1
    assert "problem FooForCausalLM cannot be trained on packs" in text


@pytest.mark.parametrize("width", [80, 100])
def test_it_fits_narrow_terminals_with_problems_first(width: int):
    environment = {"COLUMNS": str(width), "NO_COLOR": "1"}
    arguments = ["sailvit-large", "--tflops", "989"]
    text = CliRunner().invoke(app, arguments, env=environment).output
    assert text.startswith("problem sources.")
    tables = [line for line in text.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, tables)) <= width
    assert not [line for line in tables if "…" in line or "..." in line]
    assert "tokens/" in text
    assert "5 problems, listed at the top" in text


def test_measured_times_stand_beside_the_estimate(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    short = partial(bench_module.quick_speeds, seconds=1.5)
    monkeypatch.setattr(bench_module, "quick_speeds", short)
    made = recipe(parts, write_data(tmp_path), three_stages())
    (tmp_path / "mine.yaml").write_text(made.model_dump_json())
    arguments = [str(tmp_path / "mine.yaml"), "--tflops", "1", "--measure", "--devices", "2"]
    environment = {"COLUMNS": "80", "NO_COLOR": "1"}
    result = CliRunner().invoke(app, arguments, env=environment)
    assert result.exit_code == 0, result.exception
    text = result.output
    tables = [line for line in text.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, tables)) <= 80
    assert "estimated" in text
    assert "measured" in text
    assert re.search(
        r"Measured: \d+ steps here with random weights, for 2 devices; MFU coarse", text
    )
    all_stages = next(line for line in tables if line.startswith("│ all"))
    assert len(re.findall(r"\d s", all_stages)) == 2, all_stages


def test_a_recipe_with_problems_is_not_measured():
    code, text = run("sailvit-large", "--tflops", "1", "--measure")
    assert code == 1
    assert "nothing is measured before the problems are mended" in text
    assert "estimated" not in text


def test_a_model_that_does_not_fit_is_said_and_the_estimate_stands(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = recipe(parts, write_data(tmp_path), three_stages())
    (tmp_path / "mine.yaml").write_text(made.model_dump_json())
    monkeypatch.setattr("sailvit.preflight.bench.free_memory", lambda device: 1)
    code, text = run(str(tmp_path / "mine.yaml"), "--tflops", "1", "--measure")
    assert code == 0
    assert "note not measured: stage coarse" in text
    assert "FLOPs" in text

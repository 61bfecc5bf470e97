"""`sailvit plan`: what is printed and what the exit code says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from sailvit.cli.plan import plan
from sailvit.core.errors import ModelError

app = typer.Typer()
app.command()(plan)


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


def test_problems_are_the_exit_code_with_and_without_check():
    assert run("sailvit-large", "--tflops", "1", "--check")[0] == 1
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

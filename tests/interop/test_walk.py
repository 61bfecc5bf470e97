"""The whole way of a refined tower: out of its run, into a LLaVA, through target training, out as
a LLaVA, and back, with the same answers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_native_parts import write_native
from transformers import AutoModelForImageTextToText

import sailvit
from sailvit.cli.app import main
from sailvit.inference.model import RunModel
from sailvit.interop.export import export as exporting
from sailvit.interop.export.reload_model import reload
from sailvit.recipes.loader import load_recipe
from sailvit.training import trainer as trainer_module
from tiny_parts import Parts, picture
from tiny_runs import recipe, stage, without_pages, write_data

QUESTIONS = ("what colour is the square?", "what is left of the circle?")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Path | str) -> None:
    """A command of sailvit, as a user gives it."""
    monkeypatch.setattr(sys, "argv", ["sailvit", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


def answers(model: RunModel) -> list[str]:
    images = [picture(seed, 40, 30) for seed in (1, 2)]
    return [
        model.generate([image], question, max_new_tokens=12)
        for image, question in zip(images, QUESTIONS, strict=True)
    ]


def test_a_refined_tower_goes_through_a_llava_and_answers_alike(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
    without_pages(monkeypatch)
    data = tmp_path / "data"
    data.mkdir()
    stages = [
        stage("coarse", train={"connector": 1.0}, length={"samples": 8}),
        stage("fine", train={"connector": 1.0, "tower": 1.0}, length={"samples": 16}),
    ]
    sailvit.train(recipe(parts, write_data(data), stages), run="refined", quiet=True)
    # In this process: a fresh one takes ten seconds, and tests/cli/test_cli_export.py has it.
    monkeypatch.setattr(exporting.export, "__kwdefaults__", {"reload": reload})
    run(monkeypatch, "export", "refined", "--to", "tower", "--out", "tower")
    write_native(tmp_path / "llava", "llava-siglip")
    given = [each for name in ("captions.jsonl", "chat.json") for each in ("--data", data / name)]
    given += ["--images", data / "images", "--samples", "100"]
    run(monkeypatch, "equip", "llava", "--tower", "tower", "--out", "equipped", *given)
    assert "its weights are in place" in capfd.readouterr().out
    quick = {"monitoring": {"every": None}, "workers": 0, "precision": "fp32"}
    made = load_recipe("equipped/target.yaml").model_dump() | quick
    sailvit.train(sailvit.Recipe.model_validate(made), run="target", quiet=True)
    expected = answers(sailvit.load_run("target"))
    assert any(expected)
    run(monkeypatch, "export", "target", "--to", "llava", "--out", "out")
    assert type(AutoModelForImageTextToText.from_pretrained("out")).__name__ == (
        "LlavaForConditionalGeneration"
    )
    run(monkeypatch, "parts", "out", "--out", "back")
    assert answers(sailvit.load_run("back")) == expected

"""Every example runs: training from Python, own source and objective, features, questions."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import loader, written
from PIL import Image

import sailvit
from sailvit.core.errors import DataError, RecipeError
from sailvit.core.recipe import SourceConfig
from sailvit.data.sources import open_source
from sailvit.training import trainer as trainer_module
from sailvit.training.objectives.base import make_objectives, objective_problems
from tiny_parts import SIDE, Parts, picture
from tiny_runs import recipe, stage, without_pages, write_data

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
    without_pages(monkeypatch)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_a_run_made_in_python_is_trained_asked_and_gives_features(
    parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import ask
    import patch_features
    import train_in_python

    sources = write_data(tmp_path / "data")
    # Paths of images start at the folder of the file that names them.
    path = Path(sources["captions"]["path"])
    path.write_text(path.read_text().replace('"image": "', '"image": "images/'))
    done = train_in_python.main(
        parts.tower("siglip"), parts.language("llama"), str(path), tmp_path / "run"
    )
    assert "stage 1/1 coarse" in (shown := capsys.readouterr().out)
    assert f"{len(done.metrics())} steps, loss" in shown
    image = str(tmp_path / "data/images/0.png")
    answers = ask.main(done.folder, image)
    assert len(answers) == 3
    assert answers[0] == answers[1]
    assert patch_features.main(done.folder, image, image).shape == (2, SIDE // 8, SIDE // 8, 32)


def test_own_source_and_objective_train_together(parts: Parts, tmp_path: Path):
    (tmp_path / "sums.txt").write_text(
        "\n".join(f"{a} + {b} = {a + b}" for a in range(4) for b in range(3)) + "\nbroken"
    )
    sources = write_data(tmp_path / "data")
    sums = {"format": "own_source:Sums", "path": str(tmp_path / "sums.txt")}
    small = "own_objective:SmallTokens"
    settings = stage(
        data={"chat": 1, "sums": 1},
        objectives={"next_token": 1.0, small: 0.1},
        length={"samples": 12},
    )
    made = recipe(parts, {**sources, "sums": sums}, [settings])
    done = sailvit.train(made, run=tmp_path / "run", quiet=True)
    assert all(line["loss"][small] > 0 for line in done.metrics() if line["images"])
    assert done.recipe == made
    assert done.load().generate(None, "1 + 2", max_new_tokens=2) is not None


def test_mistakes_in_own_code_are_named(tmp_path: Path):
    def opened(name: str, **settings):
        return open_source("sums", SourceConfig(format=name, **settings), tmp_path)

    for name, options, said in (
        ("not_there:Sums", {}, r"module not_there cannot be imported.*current folder"),
        ("own_source:Sum", {}, r"module own_source has no class 'Sum'; expected one of Sums"),
        ("own_source:Sums", {"size": 1}, r"cannot be made from size .*missing|unexpected"),
        ("builtins:object", {}, r"builtins:object has no __len__, __getitem__, fingerprint"),
    ):
        with pytest.raises(DataError, match=said):
            opened(name, options=options)
    assert "expected a subclass of sailvit.Objective" in objective_problems(["own_source:Sums"])[0]
    bare = "sailvit.training.objectives.base:Objective"
    assert "Objective has no forward and no units; every" in objective_problems([bare])[0]
    with pytest.raises(RecipeError, match="unknown objective 'small'; registered are: next_token"):
        make_objectives(["small"])


def command(monkeypatch: pytest.MonkeyPatch, name: str, *words: object) -> dict[str, Any]:
    """Run an example as its docstring says; returns its names."""
    path = str(EXAMPLES / name)
    monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
    return runpy.run_path(path, run_name="__main__")


def test_maps_of_two_towers_share_their_colours(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_data(tmp_path)
    images = [str(tmp_path / f"images/{n}.png") for n in range(2)]
    towers = {name: parts.tower(name) for name in ("siglip", "dinov2")}
    out = tmp_path / "maps.png"
    used = ("--base", towers["siglip"], "--refined", towers["dinov2"], "--out", out)
    names = command(monkeypatch, "pca_maps.py", *images, *used)
    with Image.open(out) as drawn:
        assert drawn.width > 700
        assert len(drawn.convert("RGB").getcolors(10**6)) > 2 * 2 * 16

    same = names["main"](images, towers["siglip"], towers["siglip"], out)
    assert same.shape == (2, 2, SIDE // 8, SIDE // 8, 3)
    torch.testing.assert_close(same[0], same[1])
    other = names["main"](images, towers["siglip"], towers["dinov2"], out)
    torch.testing.assert_close(other[0], same[0])
    assert (other[0] - other[1]).abs().max() > 0.05

    # Components of one tower come back from any rotation and reflection of themselves.
    base, share = names["scores"](sailvit.load_tower(towers["siglip"])(images))
    torch.testing.assert_close(base.T @ base / len(base), torch.eye(3, dtype=base.dtype))
    assert 0.1 < share < 1
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=base.dtype)).Q
    torch.testing.assert_close(names["turned"](base @ turn, base), base)


def test_the_search_finds_the_picture_that_is_nearly_the_same(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_data(tmp_path)
    near = np.clip(picture(3, 40, 30).astype(int) + 2, 0, 255).astype(np.uint8)
    (tmp_path / "images/inside").mkdir()
    Image.fromarray(near).save(tmp_path / "images/inside/near.png")
    (tmp_path / "images/notes.txt").write_text("no picture")
    asked, out = tmp_path / "images/3.png", tmp_path / "found.png"
    where = (asked, tmp_path / "images", "--tower", parts.tower("siglip"), "--out", out)
    names = command(monkeypatch, "search.py", *where, "--count", 3)
    few = Image.open(out).size

    found = names["main"](str(asked), str(tmp_path / "images"), parts.tower("siglip"), 99, out)
    assert found[0][0].name == "near.png"
    assert found[0][1] > 0.95
    assert sorted(path.name for path, _ in found[1:]) == [f"{n}.png" for n in (0, 1, 2, 4, 5)]
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)
    many = Image.open(out).size  # seven pictures with the one asked for, six a row
    assert (many[0] > few[0], many[1] > few[1]) == (True, True)

    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"has no other pictures; expected \.jpeg, \.jpg"):
        names["main"](str(asked), str(tmp_path / "empty"), parts.tower("siglip"))


def test_an_export_is_talked_to_without_sailvit(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    tree = ast.parse((EXAMPLES / "chat_with_export.py").read_text())
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [
        a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names
    ]
    assert sorted(imported) == ["PIL", "argparse", "textwrap", "torch", "transformers"]

    load = loader(parts)
    written(load, "hf", tmp_path / "hf")
    image = tmp_path / "a.png"
    Image.fromarray(picture(5, 40, 30)).save(image)
    questions = ["what colour is it?", "where?"]
    model, expected, messages = load().model, [], []
    for question in questions:
        shown = [] if messages else [{"type": "image", "image": str(image)}]
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question}]})
        expected.append(model.chat(messages, max_new_tokens=12))
        messages.append({"role": "assistant", "content": expected[-1]})
    assert all(expected)

    capsys.readouterr()
    words = (tmp_path / "hf", image)
    drawn = tmp_path / "dialogue.png"
    command(monkeypatch, "chat_with_export.py", *words, *questions, "--tokens", 12, "--out", drawn)
    assert capsys.readouterr().out == "".join(f"{answer}\n" for answer in expected)
    with Image.open(drawn) as sheet:
        pixels = np.asarray(sheet.convert("L"))
    # The picture on the left, two questions in grey and their answers in black beside it.
    assert (pixels[:, :344] < 200).mean() > 0.2
    assert 0.001 < (pixels[:, 368:] < 128).mean() < 0.2
    typed = iter([*questions, ""])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    command(monkeypatch, "chat_with_export.py", *words, "--tokens", 12)
    assert capsys.readouterr().out == "".join(f"{answer}\n" for answer in expected)

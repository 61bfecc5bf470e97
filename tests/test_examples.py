"""Every example runs: training from Python, own source and objective, features, questions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import sailvit
from sailvit.core.errors import DataError, RecipeError
from sailvit.core.recipe import SourceConfig
from sailvit.data.sources import open_source
from sailvit.training import trainer as trainer_module
from sailvit.training.objectives.base import make_objectives, objective_problems
from tiny_parts import SIDE, Parts
from tiny_runs import recipe, stage, write_data

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
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

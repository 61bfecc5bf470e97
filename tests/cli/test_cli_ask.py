"""`sailvit ask` as a user runs it: one question, or a file of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import sailvit
from sailvit.cli.app import app
from sailvit.core.errors import DataError, RunError, SailvitError
from tiny_parts import Parts, picture, save_model


def ask(*words: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["ask", *map(str, words)])
    if isinstance(done.exception, SailvitError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(parts.build(), tmp_path_factory.mktemp("saved"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(picture(1, 60, 40)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_question_is_answered_as_from_python(folder, image):
    model = sailvit.load_run(folder)
    text = "what colour?"
    expected = model.generate([image, image], text, system="be brief", max_new_tokens=5)
    words = ("--image", image, "--image", image, "--system", "be brief", "--max-new-tokens", 5)
    assert ask(folder, text, *words).stdout == f"{expected}\n"


def test_a_file_of_questions_tells_what_was_asked_and_what_could_not_be(folder, image):
    rows = [{"question": "what?", "image": "a.png"}, {"question": "what?", "image": "b.png"}]
    questions, out = image.with_name("q.jsonl"), image.with_name("a.jsonl")
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (folder, "--questions", questions, "--out", out, "--max-new-tokens", 2)
    done = ask(*words, code=1)
    assert "1 question answered: " in done.stdout
    assert "q.jsonl line 2: " in done.stderr
    assert "1 question could not be asked" in done.stderr
    Image.fromarray(picture(2)).save(image.with_name("b.png"))
    assert "1 question answered, 1 had been before" in ask(*words).stdout
    assert len(out.read_text().splitlines()) == 2


def test_mistakes_are_sentences(folder, image, tmp_path):
    for words in ((), ("what?", "--out", "a"), ("--questions", image), ("what?", "--questions", 1)):
        with pytest.raises(DataError, match="expected a question, with --image"):
            ask(folder, *words)
    with pytest.raises(RunError, match=r"no recipe\.yaml.*or one with tower/"):
        ask(tmp_path, "what?")
    with pytest.raises(RunError, match="is no run, so it has no stage 'fine'"):
        ask(folder, "what?", "--stage", "fine")


def test_what_cannot_be_used_is_told_before_the_model_is_loaded(image, tmp_path):
    # The first complaint would otherwise be of the model, which is not there.
    with pytest.raises(RunError, match="is a folder; give the name of a file"):
        ask("no-model", "--questions", image, "--out", tmp_path)
    with pytest.raises(DataError, match=r"none\.jsonl is not a file"):
        ask("no-model", "--questions", "none.jsonl", "--out", tmp_path / "a.jsonl")
    absent = "cuda:99" if torch.cuda.is_available() else "cuda"
    for device in ("bla", absent):
        with pytest.raises(RunError, match=f"there is no device '{device}' here.*expected cpu"):
            ask("no-model", "what?", "--device", device)
        with pytest.raises(RunError, match=f"there is no device '{device}' here"):
            sailvit.load_tower("no-model", device=device)


def test_a_folder_of_parts_says_how_they_join(parts: Parts, tmp_path: Path):
    bundle = parts.build(image={"max_tiles": 3})
    folder = save_model(bundle, tmp_path)
    assert sailvit.load_run(folder).bundle.layout == bundle.layout
    (folder / "model.json").write_text('{"image": {"tiles": 3}}')
    with pytest.raises(RunError, match=r"does not say how the parts join \(.*image.tiles"):
        sailvit.load_run(folder)

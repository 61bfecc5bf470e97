"""`sailvit chat` in the terminal: images, history, commands and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import sailvit
from sailvit.cli.app import app
from sailvit.inference.dialogue import printable
from tiny_parts import Parts, picture, save_model


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(parts.build(), tmp_path_factory.mktemp("saved"))


def test_a_dialogue_with_images_commands_and_mistakes(folder: Path, tmp_path: Path):
    image = tmp_path / "a b.png"
    Image.fromarray(picture(1, 60, 40)).save(image)
    said = [
        f"/image {str(image).replace(' ', chr(92) + ' ')}",
        f"/image '{image}'",
        f"/image {tmp_path}/none.png",
        "which is larger?",
        "what does <image> mean?",
        "",
        "/what",
        "/clear",
        "what is red?",
        "/quit",
        "never read",
    ]
    words = ["chat", str(folder), "--max-new-tokens", "4", "--image", str(image)]
    done = CliRunner().invoke(app, words, input="\n".join(said) + "\n")
    assert done.exit_code == 0, done.output
    model = sailvit.load_run(folder)
    first = model.generate([image] * 3, "which is larger?", max_new_tokens=4)
    last = model.generate(None, "what is red?", max_new_tokens=4)
    shown = [line.strip() for line in done.stdout.splitlines()]
    assert shown.count("a b.png, 60 x 40: with the next question") == 3
    assert (
        shown.index(printable(first).strip())
        < shown.index("forgotten: what was said and shown")
        < len(shown) - 1
    )
    assert shown[-1].strip() == printable(last).strip()
    assert "/image PATH" in done.stdout
    assert "none.png" in done.stderr
    assert "a text cannot hold the word <image>" in done.stderr


def test_the_end_of_input_ends_it(folder: Path):
    done = CliRunner().invoke(app, ["chat", str(folder)], input="")
    assert done.exit_code == 0

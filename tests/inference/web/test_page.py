"""The page in a running gradio: an answer in pieces, the picture, and the overlay."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sailvit.cli.app import app
from sailvit.inference.model import RunModel
from sailvit.inference.web import page
from tiny_parts import Parts, picture


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["chat", str(tmp_path), "--web"])
    assert "pip install 'sailvit[web]'" in str(done.exception)


def test_the_page_answers_shows_the_picture_and_what_is_alike(parts: Parts, tmp_path: Path):
    pytest.importorskip("gradio")
    model = RunModel(parts.build())
    Image.fromarray(picture(1, 40, 20)).save(tmp_path / "a.png")
    made = page.make_page(model, max_new_tokens=6)
    functions = {fn.fn.__name__: fn.fn for fn in made.fns.values() if fn.fn is not None}
    assert "pointed" in functions
    found = page.look(model, str(tmp_path / "a.png"), (10, 10))
    assert found.size == (360, 180)
    options = page.launch_options(7860)
    assert (options["server_name"], options["share"]) == ("127.0.0.1", False)

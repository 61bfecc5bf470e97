"""`sailvit serve` as a process: it says where it listens, answers, and ends when it is told to."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from openai import OpenAI
from typer.testing import CliRunner

import sailvit
from sailvit.cli.app import app, main
from sailvit.core.errors import RunError
from tiny_parts import Parts, save_model


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(parts.build(), tmp_path_factory.mktemp("saved"))


def command(output: int, *words: str) -> None:
    """Run `sailvit` in this process, with what it says in a pipe."""
    sys.argv = ["sailvit", *words]
    with os.fdopen(output, "w", buffering=1) as sys.stdout:
        main()


def test_a_served_model_answers_as_ask_does_and_ends(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MY_KEY", "abc")
    words = ("serve", str(folder), "--port", str(port), "--name", "mine", "--key-variable")
    shown, end = os.pipe()
    # A fork, as a fresh process would import torch and transformers for seconds.
    process = multiprocessing.get_context("fork").Process(
        target=command, args=(end, *words, "MY_KEY")
    )
    process.start()
    os.close(end)
    try:
        lines = os.fdopen(shown)
        assert lines.readline() == f"mine at http://127.0.0.1:{port}/v1\n"
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="abc", max_retries=0)
        messages = [{"role": "user", "content": "what is red?"}]
        made = client.chat.completions.create(model="mine", messages=messages, max_tokens=6)
        process.terminate()
        process.join(30)
        assert process.exitcode in (0, -signal.SIGTERM)
        lines.close()
    finally:
        process.kill()
    expected = sailvit.load_run(folder).generate(None, "what is red?", max_new_tokens=6)
    assert made.choices[0].message.content == expected


def test_mistakes_are_sentences(folder: Path, tmp_path: Path):
    taken = socket.create_server(("127.0.0.1", 0))
    port = str(taken.getsockname()[1])
    for words, said in (
        (("--port", port), f"cannot listen at 127.0.0.1:{port}"),
        (("--port", "70000"), "cannot listen at 127.0.0.1:70000"),
        (("--key-variable", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE is not set"),
        (("--media", str(tmp_path / "none")), "is no folder"),
    ):
        done = CliRunner().invoke(app, ["serve", str(folder), *words])
        assert isinstance(done.exception, RunError)
        assert said in str(done.exception)
    taken.close()

"""`sailvit data charts`, `documents`, `judge` and `qa` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, text_of
from typer.testing import CliRunner

from sailvit.cli.app import app
from sailvit.core.errors import SailvitError
from sailvit.core.recipe import SourceConfig
from sailvit.data.processing.images import load_image
from sailvit.data.sources import open_source
from sailvit.recipes.loader import dump_recipe
from tiny_runs import recipe, stage, train, write_data

PAIRS = '[{"question": "What is shown?", "answer": "a chart"}]'


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["data", *map(str, words)])
    if isinstance(done.exception, SailvitError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn")
    run("charts", "--out", out, "--count", 6, "--captions", 1, "--kinds", "bar,pie", "--seed", 4)
    return out / "charts.jsonl"


def test_charts_are_written_as_they_are_drawn(drawn):
    files = open_source("files", SourceConfig(format="llava", path=str(drawn)), Path())
    options = {"size": 6, "captions": 1, "kinds": ["bar", "pie"], "seed": 4}
    made = open_source("made", SourceConfig(format="charts", options=options), Path())
    for position in range(6):
        assert (files[position].turns, files[position].kind) == (made[position].turns, "caption")
        assert (load_image(files[position].images[0]) == made[position].images[0].pixels()).all()


def test_drawing_goes_on_where_it_was_cut_off_and_on_any_number_of_workers(tmp_path):
    words = ("documents", "--count", 510, "--kinds", "sign", "--worn", 0)
    run(*words, "--out", tmp_path / "whole", "--workers", 2)
    run(*words, "--out", tmp_path / "cut")
    rows = (tmp_path / "cut" / "documents.jsonl").read_bytes()
    assert rows == (tmp_path / "whole" / "documents.jsonl").read_bytes()
    # As if killed after the second of three portions, in the middle of the third.
    parts = tmp_path / "cut" / "parts"
    parts.mkdir()
    lines = rows.splitlines(keepends=True)
    for number, begin in enumerate((0, 250)):
        (parts / f"{number:06d}.jsonl").write_bytes(b"".join(lines[begin : begin + 250]))
    (tmp_path / "cut" / "documents.jsonl").unlink()
    (tmp_path / "cut" / "images" / "000002" / "000000501.png").unlink()
    kept = (tmp_path / "cut" / "images" / "000000" / "000000003.png").stat().st_mtime_ns
    assert "10 drawn now" in run(*words, "--out", tmp_path / "cut")
    assert (tmp_path / "cut" / "documents.jsonl").read_bytes() == rows
    assert (tmp_path / "cut" / "images" / "000002" / "000000501.png").exists()
    assert (tmp_path / "cut" / "images" / "000000" / "000000003.png").stat().st_mtime_ns == kept
    assert "all were there" in run(*words, "--out", tmp_path / "cut")
    with pytest.raises(SailvitError, match="choose another folder"):
        run(*words, "--seed", 1, "--out", tmp_path / "cut")


def scored(body: dict[str, Any]) -> str:
    return "5" if "pie" in text_of(body) else "2"


def test_the_judge_writes_scores_and_asks_once(drawn, tmp_path):
    out = tmp_path / "scores.jsonl"
    with ChatServer(scored, ["500"]) as server:
        words = ("judge", drawn, "--out", out, "--endpoint", server.url, "--model", "eyes")
        said = run(*words)
        before, count = out.read_bytes(), len(server.bodies)
        again = run(*words)
    lines = [json.loads(line) for line in before.splitlines()]
    assert [line["score"] for line in lines] == [
        5 if line["id"].startswith("pie") else 2 for line in lines
    ]
    assert {line["source"] for line in lines} == {"charts"}
    assert "12 requests (6 repeated)" in said
    assert "600 tokens sent, 42 received" in said
    assert (len(server.bodies), count) == (12, 12)
    assert "0 requests" in again
    assert "6 replies from" in again
    assert out.read_bytes() == before


def test_a_question_of_the_users_own(drawn, tmp_path):
    (tmp_path / "short.txt").write_text("Is this short? {caption}")
    with ChatServer(lambda body: "No.") as server:
        words = (
            "--out",
            tmp_path / "s.jsonl",
            "--endpoint",
            server.url,
            "--model",
            "eyes",
            "--limit",
            2,
        )
        run("judge", drawn, "--ask", tmp_path / "short.txt", "--scale", "yes-no", *words)
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [(line["question"], line["score"]) for line in lines] == [("short", 0)] * 2


def test_captions_become_questions(drawn, tmp_path):
    with ChatServer(lambda body: PAIRS) as server:
        words = ("--endpoint", server.url, "--model", "eyes")
        assert "6 questions about 6 records" in run(
            "qa", drawn, "--out", tmp_path / "qa.jsonl", *words
        )
    source = open_source(
        "qa", SourceConfig(format="llava", path=str(tmp_path / "qa.jsonl")), Path()
    )
    assert [turn.text for turn in source[5].turns] == ["<image>\nWhat is shown?", "a chart"]
    assert load_image(source[5].images[0]).ndim == 3


def test_nothing_usable_is_an_exit_code(drawn, tmp_path):
    with ChatServer(lambda body: "I cannot say.") as server:
        words = ("--endpoint", server.url, "--model", "eyes")
        assert "6 answers without a score" in run(
            "judge", drawn, "--out", tmp_path / "s.jsonl", *words, code=1
        )
        assert "6 replies without a list" in run(
            "qa", drawn, "--out", tmp_path / "q.jsonl", *words, code=1
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no model to ask"),
        (("--endpoint", "http://x/v1"), "no model to ask"),
        (("--endpoint", "http://x/v1", "--model", "m", "--mllm", "runs/x"), "or two"),
        (("--endpoint", "x/v1", "--model", "m"), "begins with http"),
        (
            ("--endpoint", "http://x/v1", "--model", "m", "--key-variable", "NO_SUCH_KEY"),
            "NO_SUCH_KEY is empty",
        ),
        (("--mllm", "nowhere"), "nowhere does not exist; name the folder of a run"),
        (("--ask", "nothing.txt"), "cannot be read as a prompt"),
        (("--scale", "1-10"), "write 1-5 or yes-no"),
        (("--scale", "yes-no"), "leave out --scale"),
    ],
)
def test_mistakes_are_named(drawn, tmp_path, words, message):
    with pytest.raises(SailvitError, match=message):
        run("judge", drawn, "--out", tmp_path / "s.jsonl", *words)


def test_a_run_of_ours_can_be_the_judge(drawn, tmp_path, parts):
    made = recipe(parts, write_data(tmp_path), [stage("only", length={"samples": 2})])
    train(made, tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text(dump_recipe(made))
    words = (
        "judge",
        drawn,
        "--out",
        tmp_path / "s.jsonl",
        "--mllm",
        tmp_path / "run",
        "--limit",
        3,
    )
    first = run(*words, code=1)
    assert "1 request (" in first
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    assert [json.loads(line)["error"] for line in lines] == [
        "no single answer on the scale 1-5"
    ] * 3
    assert "3 replies from" in run(*words, code=1)
    with pytest.raises(SailvitError, match="it has only"):
        run(*words, "--stage", "other")


def test_the_old_command_for_documents_names_the_new_one():
    with pytest.raises(SailvitError, match="is called `sailvit data documents` now"):
        run("pages", "--out", "x", "--count", 2, "--worn", 0)
    assert "pages" not in run("--help").split()

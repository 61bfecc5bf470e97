"""`sailvit evaluate` and `sailvit score` as a user runs them."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from chat_server import ChatServer
from question_tables import choice_rows, image_cell, write_table
from typer.testing import CliRunner, Result

import sailvit
from sailvit.cli.app import app
from sailvit.core.errors import DataError, RunError, SailvitError
from tiny_parts import Parts, save_model


def run(*words: object, code: int = 0) -> Result:
    made = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "80"})
    if isinstance(made.exception, SailvitError):
        raise made.exception
    assert made.exit_code == code, made.output
    return made


@pytest.fixture(scope="module")
def model(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(parts.build(), tmp_path_factory.mktemp("saved"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = choice_rows(3)
    rows[1]["image"] = "!" * 80
    folder = tmp_path / "data"
    folder.mkdir()
    write_table(folder / "MMStar.tsv", rows)
    ask = [
        {"index": str(n), "image": image_cell(n), "question": f"what {n}?", "answer": "red"}
        for n in range(2)
    ]
    write_table(folder / "DocVQA_VAL.tsv", ask)
    return folder


def evaluate(model: Path, data: Path, *words: object) -> str:
    out = data.parent / "out"
    given = ("--data", data, "--out", out, "--max-new-tokens", 3)
    return run("evaluate", model, *given, *words).output


def files(data: Path, name: str) -> list[Path]:
    return sorted((data.parent / "out").glob(f"*/*{name}"))


def test_only_the_named_set_of_the_demos_suite_is_drawn(model, tmp_path: Path):
    given = ("--suite", "demo", "--dataset", "demo_yes_no", "--questions", 8, "--out", tmp_path)
    run("evaluate", model, *given, "--max-new-tokens", 2)
    assert [each.name for each in (tmp_path / "demo").iterdir()] == ["demo_yes_no.tsv"]


def test_sets_are_scored_and_what_is_missing_is_named(model, data):
    told = evaluate(model, data)
    assert "POPE.tsv is missing; get it from https://" in told.replace("\n", "")
    assert "MD5" in told
    assert "1 question could not be asked" in told
    assert "no average: 8 of its sets have no score: MMBench_DEV_EN_V11" in told
    assert "DEV (not TEST), no judge, matcher 2026-06" in told
    made = [json.loads(line) for line in files(data, "DocVQA_VAL.jsonl")[0].open()]
    text = "what 0?\nAnswer the question using a single word or phrase."
    rows = choice_rows(1)
    image = data.parent / "0.png"
    image.write_bytes(base64.b64decode(rows[0]["image"]))
    asked = sailvit.load_run(model).generate(image, text, max_new_tokens=3)
    assert made[0]["prediction"] == asked


def test_folders_may_have_square_brackets(model, tmp_path: Path):
    """rich would take them for tags, and fail at one that ends none."""
    odd = tmp_path / "o[/b]"
    named = odd / "model[red]"
    shutil.copytree(model, named)
    given = ("--suite", "demo", "--dataset", "demo_yes_no", "--questions", 8, "--out", odd / "out")
    told = run("evaluate", named, *given, "--max-new-tokens", 2).output.replace("\n", "")
    assert f"Files and all numbers: {odd / 'out'}" in told
    assert "model[red]" in told


def test_the_same_command_computes_nothing_again(model, data):
    evaluate(model, data, "--dataset", "DocVQA_VAL")
    (first,) = files(data, "DocVQA_VAL.rank0.jsonl")
    before = first.read_bytes()
    evaluate(model, data, "--dataset", "DocVQA_VAL")
    assert first.read_bytes() == before
    evaluate(model, data, "--dataset", "DocVQA_VAL", "--prompts", "bare")
    assert len(first.read_bytes()) > len(before)
    before = first.read_bytes()
    evaluate(model, data, "--dataset", "DocVQA_VAL", "--tiling", "sail")
    assert len(first.read_bytes()) > len(before)


def test_a_written_file_has_the_score_of_the_evaluation(model, data):
    evaluate(model, data)
    results = json.loads((data.parent / "out" / "results.json").read_text())
    (sets,) = (each["sets"] for each in results["models"].values())
    for name in ("MMStar", "DocVQA_VAL"):
        for ending in ("xlsx", "jsonl"):
            told = run("score", files(data, f"_{name}.{ending}")[0]).output
            assert f"): {sets[name]['score']:.1f}; unparsed" in told


def test_models_are_compared_in_words(model, data, parts, tmp_path):
    other = save_model(parts.build(), tmp_path / "other")
    told = evaluate(model, data, other, "--dataset", "DocVQA_VAL").replace("\n", " ")
    assert "question by question" in told
    assert "does not" in told
    assert "+0.0" in told


def test_the_longest_name_of_a_set_is_whole_at_80_columns(model, data, parts, tmp_path):
    others = [save_model(parts.build(), tmp_path / name) for name in ("refined", "all-at-once")]
    name = "MMBench_DEV_EN_V11"
    write_table(data / f"{name}.tsv", choice_rows(3))
    told = evaluate(model, data, *others, "--dataset", name).partition("question by question")[2]
    rows = [line for line in told.splitlines() if name in line]
    assert len(rows) == 2
    assert all(len(row) <= 80 and "1" in row.split("│")[-2] for row in rows)


def test_models_without_any_score_are_not_compared(model, data, parts, tmp_path):
    other = save_model(parts.build(), tmp_path / "other")
    ask = {"index": "0", "image": image_cell(1), "question": "what?", "answer": "red"}
    write_table(data / "MMVet.tsv", [ask | {"category": "rec"}])
    told = evaluate(model, data, other, "--dataset", "MMVet")
    assert "no score" in told
    assert "MM-Vet is graded by a judge alone; name one with --judge" in told
    assert "question by question" not in told


@pytest.mark.parametrize("column", ["missing", "empty"])
def test_a_set_without_answers_has_a_spreadsheet_and_the_others_have_scores(model, data, column):
    rows = choice_rows(3)
    for row in rows:
        row["answer"] = ""
        if column == "missing":
            del row["answer"]
    name = "MMBench_TEST_EN_V11"
    write_table(data / f"{name}.tsv", rows)
    told = evaluate(model, data, "--dataset", name, "--dataset", "DocVQA_VAL")
    assert "upload the .xlsx to its server" in " ".join(told.split())
    assert files(data, f"{name}.xlsx")
    (sets,) = (each["sets"] for each in results_of(data)["models"].values())
    assert sets[name]["score"] is None
    assert sets["DocVQA_VAL"]["score"] == 0.0
    with pytest.raises(DataError, match=f"'answer' is {column}"):
        run("score", files(data, f"{name}.xlsx")[0], "--answers", data / f"{name}.tsv")


def test_a_limit_is_told_beside_scores_and_average(model, data):
    read = {"answer": "['x']", "category": "Regular Text Recognition"}
    rows = [{"index": str(n), "image": image_cell(n), "question": "?", **read} for n in range(3)]
    write_table(data / "OCRBench.tsv", rows)
    words = ("--dataset", "OCRBench", "--dataset", "DocVQA_VAL", "--limit", 2)
    told = " ".join(evaluate(model, data, *words).split())
    assert "OCRBench: the first 2 of its 3 questions, of which all right are 0.2 points" in told
    assert "by --limit a part of 1 set was asked, which is no score" in told
    assert "DocVQA_VAL: the first" not in told
    assert "--limit" not in evaluate(model, data, *words[:-1], 3)


def test_a_judge_that_cannot_be_used_ends_the_command(model, data):
    write_table(data / "MMStar.tsv", choice_rows(2))
    judge = ("--judge", "http://127.0.0.1:9/v1", "--judge-model", "wise", "--yes")
    with pytest.raises(DataError, match="nothing listens"):
        evaluate(model, data, "--dataset", "MMStar", *judge)


def test_judges_from_a_file_and_a_server(tmp_path):
    file = tmp_path / "m_Mine.jsonl"
    rows = [row | {"prediction": "who knows"} for row in choice_rows(2)]
    for row in rows:
        del row["image"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "): 0.0; unparsed 2 of 2; judge none" in run("score", file).output
    canned = tmp_path / "judge.jsonl"
    canned.write_text('{"index": 0, "reply": "A"}\n')
    out = tmp_path / "scored.jsonl"
    told = run("score", file, "--judge", canned, "--yes", "--out", out).output
    assert "is asked about 2 answers" in told
    assert "): 50.0; unparsed 1 of 2; judge judge.jsonl" in told
    assert [json.loads(line)["way"] for line in out.open()] == ["judge", "none"]
    with ChatServer(lambda body: "A") as server:
        words = ("--judge", server.url, "--judge-model", "wise", "--yes")
        told = run("score", file, *words).output
        assert "): 100.0; unparsed 0 of 2; judge wise" in told
        # Replies are kept: the same command asks nothing.
        count = len(server.bodies)
        assert run("score", file, *words).output == told
        assert len(server.bodies) == count == 2


def results_of(data: Path) -> dict:
    return json.loads((data.parent / "out" / "results.json").read_text())


def test_a_judge_is_asked_by_the_users_own_prompt(model, data, tmp_path):
    ask = {"index": "0", "image": image_cell(1), "question": "what?", "answer": "red"}
    write_table(data / "MMVet.tsv", [ask | {"category": "rec"}])
    prompt = tmp_path / "grade.txt"
    prompt.write_text("From 0 to 1, how far is {prediction} the same as {answer}?")
    with ChatServer(lambda body: "0.5") as server:
        judge = ("--judge", server.url, "--judge-model", "wise", "--yes")
        told = evaluate(model, data, "--dataset", "MMVet", *judge, "--judge-prompt", prompt)
        (body,) = server.bodies
    asked = body["messages"][0]["content"]
    assert str(asked).count("the same as red?") == 1
    assert "the judge was asked by grade.txt (SHA-256" in told.replace("\n", " ")
    found = results_of(data)["judge prompts"]["grade"]
    assert (found["file"], found["text"]) == ("grade.txt", prompt.read_text())
    assert len(found["sha256"]) == 64
    # A file that a score is made from, by the same option.
    file = files(data, "MMVet.jsonl")[0]
    with ChatServer(lambda body: "0.5") as server:
        judge = ("--judge", server.url, "--judge-model", "wise", "--yes")
        told = run("score", file, *judge, "--judge-prompt", prompt).output
        assert "the judge was asked by grade.txt" in told
        with pytest.raises(DataError, match=r"lacks {options}"):
            run("score", file, "--kind", "mcq", *judge, "--judge-prompt", prompt)
    with pytest.raises(DataError, match="no judge is asked; name a server"):
        evaluate(model, data, "--judge-prompt", prompt)
    replies = tmp_path / "replies.jsonl"
    replies.write_text("")
    with pytest.raises(DataError, match=r"replies\.jsonl was written before"):
        evaluate(model, data, "--judge", replies, "--judge-prompt", prompt)


def test_results_say_how_images_were_cut(model, data, parts, tmp_path):
    other = save_model(parts.build(), tmp_path / "other")
    for tiling, tiles in (("recipe", "one tile of"), ("sail", "SAIL's budget per set")):
        told = evaluate(model, data, other, "--dataset", "DocVQA_VAL", "--tiling", tiling)
        found = results_of(data)
        assert found["tiling"] == tiling
        assert all(tiles in each["tiles"] for each in found["models"].values())
        # Both models are cut alike: nothing is to be said.
        assert found["comparison note"] == ""
        assert "not cut alike" not in told
        page = (data.parent / "out" / "report.html").read_text()
        assert f"tiling {tiling}" in page


def test_mistakes_are_sentences(model, data, tmp_path):
    with pytest.raises(DataError, match="try --suite demo"):
        run("evaluate", model, "--data", tmp_path / "nowhere", "--out", tmp_path / "o")
    with pytest.raises(DataError, match="NAME=mcq"):
        evaluate(model, data, "--kind", "mcq")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "novel.txt").write_text("x")
    with pytest.raises(RunError, match=r"novel\.txt"):
        run("evaluate", model, "--data", data, "--out", tmp_path / "full")
    with pytest.raises(RunError, match=r"novel\.txt is a file; give a folder"):
        run("evaluate", "no-model", "--data", data, "--out", tmp_path / "full" / "novel.txt")
    with pytest.raises(DataError, match="the same"):
        evaluate(model, data, model)
    with pytest.raises(DataError, match="--judge-model"):
        run("score", data / "MMStar.tsv", "--judge", "http://localhost:1/v1")

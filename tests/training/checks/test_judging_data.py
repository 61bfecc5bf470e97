"""What is wrong with data of any stage is said before the first step, all at once, and mended data are used again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sailvit.core.errors import DataError, RecipeError, SailvitError
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder, read_lines
from sailvit.preflight.plan import plan
from sailvit.training import trainer as module
from sailvit.training.checks import judging
from sailvit.training.trainer import Trainer
from tiny_parts import Parts, picture
from tiny_runs import recipe, stage, train, write_data


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)
    monkeypatch.setenv("SAILVIT_CACHE", str(tmp_path / "cache"))


def chats(path: Path, count: int, *, question: str = "what?", image: str | None = None) -> dict:
    mark = "<image>\n" if image else ""
    rows = [
        {
            "id": str(n),
            **({"image": image} if image else {}),
            "conversations": [
                {"from": "human", "value": mark + question},
                {"from": "gpt", "value": "red"},
            ],
        }
        for n in range(count)
    ]
    path.write_text(json.dumps(rows))
    return {"format": "llava", "path": str(path)}


def late(parts: Parts, sources: dict[str, Any], data: str, **settings: Any) -> Recipe:
    return recipe(parts, sources, [stage("early"), stage("late", data=[data], **settings)])


def said(made: Recipe, folder: Path) -> tuple[list[str], str]:
    """What plan and train have to say."""
    with pytest.raises(SailvitError) as caught:
        Trainer(made, RunFolder(folder))
    assert not folder.exists()
    return list(plan(made).problems), str(caught.value)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("empty", "no records"),
        ("missing", "20 of 20 records cannot be used (20 missing file)"),
        ("unopened", "20 of 20 records cannot be used (20 image)"),
        ("long", "20 of 20 records cannot be used (20 too long)"),
        ("contrastive", "an objective of pairs needs records of kind caption"),
        ("silent", "20 of 20 records cannot be used (20 turns)"),
    ],
)
def test_data_of_a_late_stage_are_judged_first(parts, tmp_path, kind, expected):
    sources = write_data(tmp_path / "data")
    path, settings = tmp_path / "bad.json", {}
    if kind == "missing":
        sources["bad"] = chats(path, 20, image="nowhere.png")
    elif kind == "unopened":
        (tmp_path / "page.png").write_bytes(b"<html>")
        sources["bad"] = chats(path, 20, image="page.png")
    elif kind == "long":
        sources["bad"] = chats(path, 20, question="what colour is it? " * 90)
    else:
        sources["bad"] = chats(path, 0 if kind == "empty" else 20)
    if kind == "contrastive":
        settings = {"objectives": {"next_token": 1.0, "contrastive": 0.1}}
    if kind == "silent":
        rows = json.loads(path.read_text())
        for row in rows:
            row["conversations"].pop()
        path.write_text(json.dumps(rows))
    problems, error = said(late(parts, sources, "bad", **settings), tmp_path / "run")
    assert len(problems) == 1
    assert expected in problems[0]
    assert expected in error


def test_all_problems_are_listed_at_once(parts, tmp_path):
    sources = write_data(tmp_path / "data")
    sources["empty"] = chats(tmp_path / "empty.json", 0)
    sources["missing"] = chats(tmp_path / "missing.json", 20, image="nowhere.png")
    both = {"next_token": 1.0, "contrastive": 0.1}
    stages = [
        stage("first"),
        stage("second", data=["missing"]),
        stage("third", data=["empty", "chat"]),
        stage("fourth", data=["text"], objectives=both),
    ]
    problems, error = said(recipe(parts, sources, stages), tmp_path / "run")
    assert len(problems) == 3
    assert "3 problems stop this run" in error
    for name in ("sources.missing", "sources.empty", "stages.3 (fourth)"):
        assert name in error
        assert any(name in problem for problem in problems)


def test_problems_of_settings_and_of_records_are_listed_together(parts, tmp_path, monkeypatch):
    sources = write_data(tmp_path / "data")
    sources["empty"] = chats(tmp_path / "empty.json", 0)
    sources["missing"] = chats(tmp_path / "missing.json", 20, image="nowhere.png")
    (tmp_path / "wrong").mkdir()
    both = {"next_token": 1.0, "contrastive": 0.1}
    stages = [
        stage("first"),
        stage("second", data=["missing"]),
        stage("third", data=["empty"]),
        stage("fourth", data=["text"], objectives=both),
        stage("fifth", start_from={"connector": str(tmp_path / "wrong")}),
        stage("sixth", objectives={"no_such_module:Loss": 1.0}),
    ]
    # No weights are asked for.
    monkeypatch.setattr(module, "build", None)
    problems, error = said(recipe(parts, sources, stages), tmp_path / "run")
    assert len(problems) == 5
    assert "5 problems stop this run" in error
    expected = (
        "sources.missing",
        "sources.empty",
        "stages.3 (fourth)",
        "no config.json",
        "no_such",
    )
    for text in expected:
        assert text in error
        assert sum(text in problem for problem in problems) == 1


@pytest.mark.parametrize("kind", ["empty", "gone"])
def test_the_source_of_monitoring_is_judged_too(parts, tmp_path, monkeypatch, kind):
    sources = write_data(tmp_path / "data")
    sources["seen"] = chats(tmp_path / "seen.json", 0)
    if kind == "gone":
        (tmp_path / "seen.json").unlink()
    watched = {"every": 2, "source": "seen", "share": None}
    monkeypatch.setattr(module, "build", None)
    problems, error = said(recipe(parts, sources, [stage()], monitoring=watched), tmp_path / "run")
    expected = "no records" if kind == "empty" else "is not a file"
    assert len(problems) == 1
    assert expected in problems[0]
    assert expected in error


def test_files_are_checked_before_weights_are_loaded(parts, tmp_path, monkeypatch):
    sources = write_data(tmp_path / "data")
    sources["gone"] = {"format": "llava", "path": str(tmp_path / "gone.json")}
    sources["odd"] = {"format": "lava", "path": str(tmp_path / "gone.json")}
    made = recipe(
        parts,
        sources,
        [
            stage("first"),
            stage("second", data=["gone"], start_from={"tower": "/not/there"}),
            stage("third", data=["odd"], objectives={"next_tokn": 1.0}),
        ],
    )
    monkeypatch.setattr(module, "build", None)
    with pytest.raises(RecipeError, match="4 problems") as caught:
        Trainer(made, RunFolder(tmp_path / "run"))
    for text in ("/not/there", "next_tokn", "gone.json", "lava"):
        assert text in str(caught.value)


def test_a_few_bad_records_are_put_up_with(parts, tmp_path):
    sources = write_data(tmp_path / "data")
    rows = json.loads(Path(sources["chat"]["path"]).read_text())
    rows[0]["images"] = ["nowhere.png"]
    rows[0]["conversations"][0]["value"] = "<image> what?"
    Path(sources["chat"]["path"]).write_text(json.dumps(rows))
    made = recipe(parts, sources, [stage()])
    assert plan(made).problems == ()
    train(made, tmp_path / "run")
    none = {"share": 0.0, "allow": 0}
    strict = Recipe.model_validate({**made.model_dump(), "quarantine": none})
    with pytest.raises(DataError, match="1 of 9 records cannot be used"):
        Trainer(strict, RunFolder(tmp_path / "strict"))


def test_mended_records_are_used_at_the_next_start(parts, tmp_path):
    sources = write_data(tmp_path / "data")
    sources["late"] = chats(tmp_path / "late.json", 20, image="late.png")
    made = recipe(parts, sources, [stage(data=["late"])])
    with pytest.raises(DataError, match="20 missing file"):
        Trainer(made, RunFolder(tmp_path / "run"))
    Image.fromarray(picture(1)).save(tmp_path / "late.png")
    train(made, tmp_path / "run")
    assert list(read_lines(RunFolder(tmp_path / "run").quarantine)) == []


@pytest.mark.parametrize("width", [32, 128], ids=["fewer tiles", "more tiles"])
def test_an_image_that_was_replaced_is_measured_again(parts, tmp_path, width):
    other = {32: 128, 128: 32}[width]
    sources = {"one": chats(tmp_path / "one.json", 20, image="one.png")}
    model = {**parts.config().model_dump(), "image": {"max_tiles": 4}}
    made = recipe(parts, sources, [stage(data=["one"], length={"samples": 4})], model=model)
    loose = {"share": 1.0, "allow": 100}
    made = Recipe.model_validate({**made.model_dump(), "quarantine": loose})
    Image.fromarray(picture(1, other, 32)).save(tmp_path / "one.png")
    notes: list[dict[str, Any]] = []
    begun = Trainer(made, RunFolder(tmp_path / "first"), announce=notes.append)
    Image.fromarray(picture(1, width, 32)).save(tmp_path / "one.png")
    bad: list[Any] = []
    try:
        begun.run()
    except DataError as error:
        # Not one of the records fits its pack any more.
        bad.append(error)
    assert bool(bad) == (width > other)
    assert sum("has changed since it was measured" in str(note) for note in notes) == 1
    train(made, tmp_path / "second")
    assert list(read_lines(RunFolder(tmp_path / "second").quarantine)) == []


def test_one_problem_keeps_its_own_error():
    judging.refuse([])
    with pytest.raises(DataError, match="only"):
        judging.refuse([DataError("only")])


def test_a_few_records_that_are_left_out_are_said_before_the_run(parts, tmp_path):
    sources = write_data(tmp_path / "data")
    rows = chats(tmp_path / "some.json", 20)
    listed = json.loads((tmp_path / "some.json").read_text())
    listed[3] = {**listed[3], "image": "nowhere.png"}
    listed[3]["conversations"][0]["value"] = "<image>\nwhat?"
    (tmp_path / "some.json").write_text(json.dumps(listed))
    sources["some"] = rows
    made = plan(late(parts, sources, "some"))
    assert not made.problems
    (told,) = [text for text in made.remarks if text.startswith("sources.some")]
    assert "1 of 20 records cannot be used (1 missing file), and will be left out" in told
    assert "record 3: " in told
    assert "nowhere.png does not exist" in told

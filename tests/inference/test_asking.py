"""Files of questions: every answer once, whatever was killed in between, and every error with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sailvit.core.errors import RunError
from sailvit.inference.asking import Asked, answer_file
from sailvit.inference.generation import Options
from sailvit.inference.model import RunModel
from tiny_parts import Parts, picture

OPTIONS = Options(3)


@pytest.fixture(scope="module")
def model(parts: Parts) -> RunModel:
    return RunModel(parts.build())


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    rows = [
        {"question": "what colour?", "image": "a.png"},
        {"id": "seven", "question": "<image> or <image>?", "images": ["a.png", "a.png"]},
        {"question": "what is red?", "system": "be brief"},
        {"conversations": [{"from": "human", "value": "<image>\nwhat colour?"}], "image": "a.png"},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": "a.png"}, "what colour?"]},
                {"role": "assistant", "content": "never shown"},
            ]
        },
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def run(model: RunModel, questions: Path, out: Path, **changes) -> Asked:
    given = {"options": OPTIONS, "identity": "a", "batch": 2, **changes}
    return answer_file(model, questions, out, given.pop("options"), **given)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_of_every_layout_are_answered_as_from_python(model, questions, tmp_path):
    done = run(model, questions, tmp_path / "out.jsonl")
    assert (done.answered, done.known, done.errors) == (5, 0, ())
    made = lines(tmp_path / "out.jsonl")
    assert [line["id"] for line in made] == ["0", "seven", "2", "3", "4"]
    image = tmp_path / "a.png"
    first = model.generate(image, "what colour?", max_new_tokens=3)
    assert [made[n]["answer"] for n in (0, 3, 4)] == [first] * 3
    both = model.generate([image, image], "<image> or <image>?", max_new_tokens=3)
    assert made[1]["answer"] == both
    brief = model.generate(None, "what is red?", system="be brief", max_new_tokens=3)
    assert made[2]["answer"] == brief
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()


@pytest.mark.parametrize("kept", [0, 1, 40, 100, 200])
def test_a_file_cut_at_any_byte_is_completed_with_nothing_twice(model, questions, tmp_path, kept):
    out = tmp_path / "out.jsonl"
    run(model, questions, out)
    whole = out.read_bytes()
    out.write_bytes(whole[:kept])
    done = run(model, questions, out)
    assert out.read_bytes() == whole
    assert done.known == whole[:kept].count(b"\n")
    assert run(model, questions, out).answered == 0
    assert out.read_bytes() == whole


def test_errors_are_listed_by_line_and_asked_again(model, questions, tmp_path):
    out, errors = tmp_path / "out.jsonl", tmp_path / "out.jsonl.errors.jsonl"
    rows = questions.read_text().splitlines()
    broken = ['{"question": "a", "image": "late.png"}', "{", '{"image": "a.png"}', "", "[1]"]
    outside = '{"question": "a", "image": "../../etc/passwd"}'
    questions.write_text("\n".join([rows[0], *broken, outside, *rows[1:]]) + "\n")
    (tmp_path / "late.png").write_bytes(b"no image")
    done = run(model, questions, out)
    assert (done.answered, len(done.errors)) == (5, 5)
    listed = [(line["place"].split()[-1], line["error"]) for line in lines(errors)]
    assert [place for place, _ in listed] == ["2", "3", "4", "6", "7"]
    for (_, error), said in zip(
        listed,
        (
            "late.png",
            "is not JSON",
            "expected `question`",
            "expected a JSON object",
            "leads out of",
        ),
        strict=True,
    ):
        assert said in error
    Image.fromarray(picture(2)).save(tmp_path / "late.png")
    done = run(model, questions, out)
    assert (done.answered, done.known, len(done.errors)) == (1, 5, 4)
    assert len({line["key"] for line in lines(out)}) == 6


def test_answers_of_another_model_or_file_and_foreign_files_stay_as_they_are(
    model, questions, tmp_path
):
    out = tmp_path / "out.jsonl"
    run(model, questions, out)
    before = out.read_bytes()
    for changes in ({"identity": "b"}, {"options": Options(4)}):
        with pytest.raises(RunError, match="holds 5 answers to other questions"):
            run(model, questions, out, **changes)
    assert out.read_bytes() == before
    for content in (b"my notes", b'{"mine": 1}\n', b"1\n2\n", questions.read_bytes()):
        out.write_bytes(content)
        with pytest.raises(RunError, match="no answers of this command"):
            run(model, questions, out)
        assert out.read_bytes() == content


def test_two_processes_do_not_write_one_file(model, questions, tmp_path):
    out = tmp_path / "out.jsonl"

    def second(done: int, total: int) -> None:
        if done < total:
            with pytest.raises(RunError, match="another process writes"):
                run(model, questions, out)

    run(model, questions, out, batch=1, seen=second)
    assert len(lines(out)) == 5


def test_answers_about_other_images_are_not_kept(model, questions, tmp_path):
    """Neither of another folder, nor of a file that was replaced."""
    out = tmp_path / "out.jsonl"
    run(model, questions, out)
    before = out.read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(picture(2)).save(other / "a.png")
    with pytest.raises(RunError, match="holds 4 answers to other questions or about other images"):
        run(model, questions, out, images=other)
    assert run(model, questions, out, images=tmp_path).answered == 0
    Image.fromarray(picture(3, 40, 40)).save(tmp_path / "a.png")
    with pytest.raises(RunError, match="holds 4 answers"):
        run(model, questions, out)
    assert out.read_bytes() == before

"""What pages show of an evaluation: questions, small pictures, what answers count."""

from __future__ import annotations

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image
from question_tables import choice_rows, write_table

from sailvit.core.run import read_json
from sailvit.evaluation.scoring.results import ScoredAnswer, SetScore
from sailvit.evaluation.suites.planning import PlannedSet
from sailvit.evaluation.suites.sets import QuestionSet
from sailvit.evaluation.suites.shown import FOLDER, shared_out, write_answers, write_questions
from sailvit.evaluation.suites.tables import QuestionTable


@pytest.mark.parametrize(
    ("counts", "most", "shares"),
    [
        ([10, 3, 50], 5000, [10, 3, 50]),
        ([10, 3, 50], 30, [10, 3, 17]),
        ([100, 100], 7, [3, 4]),
        ([], 5, []),
    ],
)
def test_small_sets_are_shown_whole_and_large_ones_alike(counts, most, shares):
    assert shared_out(counts, most) == shares


def planned(folder, rows, name="mine"):
    table = QuestionTable(write_table(folder / f"{name}.tsv", rows))
    return PlannedSet(QuestionSet(name, "mcq"), table)


def photograph(seed=0):
    """A noisy picture of 400 x 300 pixels in base64."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def picture_of(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_questions_come_with_options_and_small_pictures(tmp_path):
    rows = [*choice_rows(2), {**choice_rows(3)[2], "image": photograph()}]
    rows.append({**choice_rows(4)[3], "image": "0"})
    write_questions(tmp_path, [planned(tmp_path, rows)], None)
    found = read_json(tmp_path / "questions" / "mine.json")
    first, _, large, again = found["questions"]
    assert first["options"] == {"A": "red", "B": "blue"}
    assert (found["kind"], found["count"], first["answer"]) == ("mcq", 4, "A")
    small = picture_of(found["pictures"][first["pictures"][0]])
    assert small.size == (12, 12)
    assert small.convert("RGB").getpixel((5, 5)) == (0, 0, 0)
    assert max(picture_of(found["pictures"][large["pictures"][0]]).size) <= 160
    # A row that names another's image has the same picture.
    assert again["pictures"] == first["pictures"]
    assert len(found["pictures"]) == 3


def test_unreadable_pictures_leave_the_question(tmp_path):
    rows = choice_rows(2)
    rows[1]["image"] = "!" * 80
    write_questions(tmp_path, [planned(tmp_path, rows)], 2)
    found = read_json(tmp_path / "questions" / "mine.json")
    assert [len(each["pictures"]) for each in found["questions"]] == [1, 0]


def test_a_replaced_image_is_shown(tmp_path):
    rows = [{"index": "0", "image_path": "x.png", "question": "q"}]
    seen = []
    for shade in (0, 200):
        Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(tmp_path / "x.png")
        os.utime(tmp_path / "x.png", ns=(shade, shade))
        write_questions(tmp_path, [planned(tmp_path, rows)], None)
        (uri,) = read_json(tmp_path / FOLDER / "mine.json")["pictures"].values()
        seen.append(int(np.asarray(picture_of(uri))[0, 0, 0]))
    assert seen[1] > seen[0] + 100


def test_what_is_there_is_not_made_again(tmp_path):
    sets = [planned(tmp_path, choice_rows(3))]
    write_questions(tmp_path, sets, 2)
    path = tmp_path / "questions" / "mine.json"
    before = path.stat().st_mtime_ns
    write_questions(tmp_path, sets, 2)
    assert path.stat().st_mtime_ns == before
    write_questions(tmp_path, sets, 3)
    assert len(read_json(path)["questions"]) == 3


def test_pictures_of_many_questions_fit_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr("sailvit.evaluation.suites.shown._CHARACTERS", 40_000)
    rows = [{**row, "image": photograph(n)} for n, row in enumerate(choice_rows(12))]
    write_questions(tmp_path, [planned(tmp_path, rows)], None)
    found = read_json(tmp_path / "questions" / "mine.json")
    assert sum(map(len, found["pictures"].values())) <= 80_000


def test_answers_are_kept_with_what_they_count(tmp_path):
    score = SetScore(50.0, answers=(ScoredAnswer("7", 0.5, "A"),), unparsed=1)
    write_answers(tmp_path, "mine", score)
    (answer,) = read_json(tmp_path / "mine.answers.json")["answers"]
    assert answer == {"index": "7", "credit": 0.5, "understood": "A", "way": "rule"}

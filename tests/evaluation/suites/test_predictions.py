"""Predictions: every one computed once, whatever was killed in between."""

import json

import pytest
from question_tables import choice_rows, write_table

from sailvit.core.errors import DataError, RunError
from sailvit.evaluation.scoring.rows import lowered, options_of
from sailvit.evaluation.suites.predictions import (
    FAILED,
    Prediction,
    PredictionStore,
    predict_set,
)
from sailvit.evaluation.suites.prompts import PromptForm, form_of
from sailvit.evaluation.suites.tables import QuestionTable
from two_processes import in_two

FORM = PromptForm()


@pytest.fixture
def table(tmp_path) -> QuestionTable:
    return QuestionTable(write_table(tmp_path / "t.tsv", choice_rows(7)))


class Model:
    """Answers with the last word of the question, in reverse order, and counts."""

    def __init__(self, fails_after: int = 99) -> None:
        self.asked: list[str] = []
        self.fails_after = fails_after

    def __call__(self, records):
        for number in reversed(range(len(records))):
            if len(self.asked) == self.fails_after:
                raise KeyboardInterrupt
            text = records[number].turns[0].text
            self.asked.append(text)
            yield number, Prediction(text.split()[-1])


def run(table, folder, model, identity="m", **changes):
    store = PredictionStore(folder, "t")
    return predict_set(table, FORM, model, store, identity=identity, **changes)


def test_answers_come_in_the_order_of_the_table(table, tmp_path):
    seen = []
    made = run(table, tmp_path / "o", Model(), seen=lambda done, total: seen.append((done, total)))
    assert [each.text for each in made] == [f"{n}?" for n in range(7)]
    assert seen == [(n, 7) for n in range(8)]


def test_a_killed_run_goes_on_and_computes_nothing_twice(table, tmp_path):
    first = Model(fails_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(table, tmp_path / "o", first)
    # A kill in the middle of a line.
    with (tmp_path / "o" / "t.rank0.jsonl").open("a") as file:
        file.write('{"key": "x", "pred')
    second, third = Model(), Model()
    assert [each.text for each in run(table, tmp_path / "o", second)][6] == "6?"
    assert len(first.asked) + len(second.asked) == 7
    run(table, tmp_path / "o", third)
    assert third.asked == []


def test_a_set_may_have_brackets_in_its_name(table, tmp_path):
    for expected in (7, 0):
        model = Model()
        predict_set(table, FORM, model, PredictionStore(tmp_path, "my[v2]"), identity="m")
        assert len(model.asked) == expected


def test_another_model_prompt_or_image_is_asked_anew(table, tmp_path):
    run(table, tmp_path / "o", Model())
    other = Model()
    run(table, tmp_path / "o", other, identity="n")
    assert len(other.asked) == 7
    rows = choice_rows(7)
    rows[2]["question"] = "another"
    rows[3]["image"] = rows[4]["image"]
    changed = Model()
    run(QuestionTable(write_table(tmp_path / "u.tsv", rows)), tmp_path / "o", changed)
    assert len(changed.asked) == 2


def test_what_is_the_same_to_the_model_is_asked_once(tmp_path):
    # Bare, the rotations of a question differ in nothing that the model sees.
    rows = choice_rows(2)
    rows += [row | {"index": row["index"] + "0", "A": "blue", "B": "red"} for row in rows]
    rows[2]["index"] = "7"
    table = QuestionTable(write_table(tmp_path / "t.tsv", rows))
    model, seen = Model(), []
    made = run(table, tmp_path / "o", model, seen=lambda done, total: seen.append((done, total)))
    assert [each.text for each in made] == ["0?", "1?"] * 2
    assert len(model.asked) == 2
    assert seen == [(0, 4), (2, 4), (4, 4)]


def test_what_failed_is_said_and_tried_again(table, tmp_path):
    def failing(records):
        yield from ((n, Prediction(FAILED, "broken")) for n in range(len(records)))

    assert {each.error for each in run(table, tmp_path / "o", failing)} == {"broken"}
    again = Model()
    assert not any(each.error for each in run(table, tmp_path / "o", again))
    assert len(again.asked) == 7


def test_a_row_whose_image_cannot_be_read_fails_alone(tmp_path):
    rows = choice_rows(3)
    rows[1]["image"] = "!" * 80
    table = QuestionTable(write_table(tmp_path / "t.tsv", rows))
    made = run(table, tmp_path / "o", Model())
    assert [bool(each.error) for each in made] == [False, True, False]
    assert made[1].text == FAILED


def test_lines_of_others_are_refused(table, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "t.rank0.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(RunError, match="no predictions"):
        run(table, tmp_path / "o", Model())


def test_options_are_asked_as_they_are_scored(tmp_path):
    """pandas reads a column of whole numbers with one empty cell as one of floats."""
    rows = [row | {"A": str(n), "B": "7" if n < 2 else ""} for n, row in enumerate(choice_rows(3))]
    table = QuestionTable(write_table(tmp_path / "t.tsv", rows))
    model = Model()
    # The types are those of the whole table, whose empty cell is not among the first rows.
    predict_set(table, form_of("mcq"), model, PredictionStore(tmp_path, "t"), identity="", limit=2)
    assert ["Options:\nA. 1\nB. 7.0\n" in text for text in model.asked] == [True, False]
    assert all("B. 7.0\n" in text for text in model.asked)
    assert [options_of(lowered(row)) for row in table.cells][:2] == [
        {"A": "0", "B": "7.0"},
        {"A": "1", "B": "7.0"},
    ]


def test_a_limit_takes_the_first_questions(table, tmp_path):
    model = Model()
    assert len(run(table, tmp_path / "o", model, limit=2)) == 2
    assert len(model.asked) == 2


def test_two_processes_share_the_questions_and_know_all_answers(table, tmp_path):
    def work(index: int) -> None:
        model = Model()
        made = run(table, tmp_path / "o", model)
        (tmp_path / f"{index}.json").write_text(
            json.dumps([len(model.asked), [each.text for each in made]])
        )

    assert in_two(tmp_path, work) == ["done", "done"]
    one, other = (json.loads((tmp_path / f"{n}.json").read_text()) for n in range(2))
    assert one[0] + other[0] == 7
    assert one[1] == other[1] == [f"{n}?" for n in range(7)]


def test_an_error_of_one_process_ends_both(table, tmp_path):
    def work(index: int) -> None:
        def failing(records):
            raise DataError("no memory")
            yield

        run(table, tmp_path / "o", failing if index else Model())

    assert in_two(tmp_path, work) == ["DataError: no memory"] * 2

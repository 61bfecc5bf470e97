import pytest

from sailvit.synthetic.world.answers import is_correct, normalise
from sailvit.synthetic.world.source import WorldSource
from sailvit.synthetic.world.tasks import TASKS


def test_normalise_ignores_case_and_spacing():
    assert normalise("  Top left\nRED circle,top  right ") == "top left red circle , top right"


@pytest.mark.parametrize("task", ["fine", "read_fine", "coarse"])
def test_captions_are_compared_as_sets_of_phrases(task):
    assert is_correct(task, "blue bar 3 , red bar 1", "red bar 1 , blue bar 3")
    assert not is_correct(task, "red bar 1", "red bar 1 , blue bar 3")
    assert not is_correct(task, "red bar 1 , red bar 1", "red bar 1")
    assert not is_correct(task, "blue bar 1 , red bar 3", "red bar 1 , blue bar 3")


@pytest.mark.parametrize(
    ("task", "prediction", "right"),
    [("ocr", "7 4", False), ("ocr", " 4  7 ", True), ("where", "left top", False)],
)
def test_other_answers_are_compared_in_order(task, prediction, right):
    assert is_correct(task, prediction, {"ocr": "4 7", "where": "top left"}[task]) == right


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_is_right_and_no_empty_one(task):
    answer = WorldSource("held_out", task, 1)[0].turns[1].text
    assert is_correct(task, answer, answer)
    assert not is_correct(task, "", answer)

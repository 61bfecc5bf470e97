"""Prompts letter by letter as the kit's, and changes to them."""

import pytest

from sailvit.core.errors import DataError
from sailvit.evaluation.suites.prompts import (
    changed,
    form_of,
    prompt_record,
    prompt_text,
    read_forms,
    read_style,
)

ROW = {"index": "1", "question": "what?", "hint": "look", "A": "red", "B": "", "C": "blue"}
ONE, TWO = (b"1",), (b"1", b"2")


def asked(row, images, form):
    record = prompt_record(row, images, form)
    return record.turns[0].text, record.images


def test_options_are_listed_with_hint_and_line():
    assert prompt_text(ROW, form_of("mcq")) == (
        "Hint: look\nQuestion: what?\nOptions:\nA. red\nC. blue\n"
        "Please select the correct answer from the options above. \n"
    )


def test_images_stand_before_the_text():
    text, images = asked({"question": "q"}, TWO, form_of("hallusion"))
    assert text == "<image>\n<image>\nq"
    assert images == TWO


def test_short_answers_are_asked_for():
    text, _ = asked({"question": "q"}, ONE, form_of("anls"))
    assert text == "<image>\nq\nAnswer the question using a single word or phrase."


def test_mmmu_places_images_and_drops_those_not_named():
    row = {"question": "see <image 2> and <image 2>", "A": "<image 1>", "B": "x"}
    text, images = asked(row, (b"1", b"2", b"3"), form_of("mmmu"))
    assert text.startswith("Question: see <image> and <image>\nOptions:\nA. <image>\nB. x\n")
    assert images == (b"2", b"2", b"1")
    with pytest.raises(DataError, match="image 2 of 1"):
        prompt_record(row, ONE, form_of("mmmu"))


def test_a_question_that_holds_the_mark_takes_no_image():
    text, images = asked({"question": "what is <image>?"}, ONE, form_of("hallusion"))
    assert text == "<image>\nwhat is image?"
    assert images == ONE


def test_styles_and_changes(tmp_path):
    direct = form_of("hallusion", read_style("direct"))
    assert prompt_text({"question": "q"}, direct) == "q Please answer yes or no."
    path = tmp_path / "p.json"
    path.write_text('{"X": {"suffix": " Briefly."}}')
    form = changed(form_of("hallusion"), read_forms(path)["X"])
    assert prompt_text({"question": "q"}, form) == "q Briefly."
    path.write_text('{"X": {"sufix": ""}}')
    with pytest.raises(DataError, match="sufix"):
        read_forms(path)
    with pytest.raises(DataError, match="vlmevalkit, direct, bare"):
        read_style("x")


def test_options_that_a_table_reads_as_nothing_are_not_listed():
    row = {"question": "q", "hint": "NaN", "A": "red", "B": "nan", "C": "None", "D": "none"}
    text = prompt_text(row, form_of("mcq"))
    assert text.startswith("Question: q\nOptions:\nA. red\nD. none\nPlease")

"""What is written stands on the page, apart from everything else, and is what the record says."""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np
import pytest

from sailvit.core.seeding import numpy_generator
from sailvit.synthetic.documents.degradation import STEEPEST, turned
from sailvit.synthetic.documents.fonts import shipped_faces
from sailvit.synthetic.documents.layouts import LAYOUTS
from sailvit.synthetic.documents.sheets import Page, wrap
from sailvit.synthetic.documents.vocabulary import Writer

SAMPLES = 40


def pages(kind: str):
    for number in range(SAMPLES):
        rng = numpy_generator(0, kind, number)
        yield LAYOUTS[kind](rng, Writer(rng), shipped_faces()[number % len(shipped_faces())])


def fields(page: Page) -> dict[str, str]:
    found = dict(page.fields)
    assert len(found) == len(page.fields), "a question is there twice"
    return found


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("angle", [0.0, STEEPEST, -STEEPEST])
def test_no_letter_leaves_the_page_however_it_is_turned(kind, angle):
    for page in pages(kind):
        for span in page.spans:
            corners = turned(span.box, page.size, angle)
            assert corners.min() >= 0, span
            assert (corners <= np.array(page.size)).all(), (span, page.size)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_no_text_covers_another(kind):
    for page in pages(kind):
        boxes = [span.box for span in page.spans]
        for index, (left, upper, right, lower) in enumerate(boxes):
            for other in boxes[index + 1 :]:
                wide, high = (
                    min(right, other[2]) - max(left, other[0]),
                    min(lower, other[3]) - max(upper, other[1]),
                )
                assert wide <= 0 or high <= 1, (page.spans[index].text, other)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_rows_hold_every_word_of_the_page_in_reading_order(kind):
    for page in pages(kind):
        written = sorted(" ".join(span.text for span in page.spans).split())
        assert (
            sorted(word for row in page.rows for word in row.replace(" | ", " ").split()) == written
        )
        assert all(row.strip() == row != "" for row in page.rows)


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "columns"])
def test_rows_go_down_the_page(kind):
    for page in pages(kind):
        tops = [span.y for span in page.spans]
        assert tops == sorted(tops)


def test_the_left_column_is_read_before_the_right_one():
    for page in pages("columns"):
        body = [span for span in page.spans if span.size == min(s.size for s in page.spans)]
        left = [span.x for span in body]
        assert len(set(left)) == 2
        assert left == sorted(left)


@pytest.mark.parametrize("kind", [kind for kind in LAYOUTS if kind != "paragraphs"])
def test_answers_are_written_on_the_page(kind):
    for page in pages(kind):
        text = " ".join(page.rows)
        assert page.fields
        for question, answer in fields(page).items():
            assert answer in text or question == "How many items were bought?"


def test_receipts_add_up():
    for page in pages("receipt"):
        answers = fields(page)
        prices = [
            Decimal(answer)
            for question, answer in answers.items()
            if question.startswith("What is the price")
        ]
        assert Decimal(answers["What is the total?"]) == sum(prices)
        assert answers["How many items were bought?"] == str(len(prices))
        assert page.rows[-1] == f"Total {answers['What is the total?']}"
        for question, answer in answers.items():
            if question.startswith("What is the price of "):
                assert f"{question[21:-1]} {answer}" in page.rows


def test_cells_of_a_table_stand_under_their_head():
    for page in pages("table"):
        heads = next(row for row in page.rows if row.startswith("Name | ")).split(" | ")
        body = {
            row.split(" | ")[0]: row.split(" | ")
            for row in page.rows
            if row.count("|") == len(heads) - 1
        }
        for question, answer in page.fields[1:]:
            head, name = re.fullmatch(r'What is the "(.+)" of (.+)\?', question).groups()
            assert body[name][heads.index(head)] == answer


def test_items_of_a_list_are_counted_from_the_top():
    for page in pages("list"):
        items = [row.split(" ", 1)[1] for row in page.rows[-len(page.fields) + 1 :]]
        for question, answer in page.fields[1:]:
            assert items[int(question.split()[3]) - 1] == answer


def test_what_is_written_under_a_label_stands_beside_it():
    for page in pages("form"):
        for question, answer in page.fields:
            label = question.split('"')[1]
            assert page.rows.count(f"{label}: {answer}") == 1


def test_wrapping_keeps_every_word_and_the_width():
    face = shipped_faces()[0]
    text = Writer(numpy_generator(1, "wrap")).paragraph()
    lines = wrap(text, face, 20, 200)
    assert " ".join(lines) == text
    assert len(lines) > 3
    assert wrap("W" * 99, face, 20, 100)[0].strip("W") == ""
    assert len(wrap("W" * 99, face, 20, 100)[0]) < 10

"""Every answer is worked out again from the table alone, by other code that reads the question as a person would."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import get_args

import pytest

from sailvit.core.seeding import numpy_generator
from sailvit.synthetic.charts.captions import caption_of
from sailvit.synthetic.charts.questions import FORMS, KIND_NAMES, ChartQuestion, some_questions
from sailvit.synthetic.charts.tables import QUARTILES, Table, TableKind, draw_table

KINDS = get_args(TableKind)
SAMPLES = 200
"""Tables per kind: 2000 in all."""


def tables(kind: str):
    for number in range(SAMPLES):
        rng = numpy_generator(0, kind, number)
        yield draw_table(rng, kind), rng


def number(text: str) -> Fraction:
    return Fraction(text)


class ChartReader:
    """Answers questions about a table from names and printed numbers."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.name = table.quantity.name
        self.unit = f", in {table.quantity.unit}" if table.quantity.unit else ""
        self.rows = (
            {self._row(row): row for row in range(len(table.series))} if table.kind != "box" else {}
        )
        self.cells = {
            f"{phrase} {table.across.at} {label}": self.value(row, column)
            for phrase, row in self.rows.items()
            for column, label in enumerate(table.labels)
        }

    def _row(self, row: int) -> str:
        return (
            f"the {self.name} of {self.table.series[row]}"
            if self.table.group
            else f"the {self.name}"
        )

    def value(self, row: int, column: int) -> Fraction:
        return number(self.table.text(self.table.values[row][column]))

    def series(self, phrase: str) -> list[Fraction]:
        return [self.value(self.rows[phrase], column) for column in range(len(self.table.labels))]

    def answers(self, question: ChartQuestion) -> list[str]:
        """All answers that a reader could give; there must be one."""
        text = question.text.removesuffix("?").replace(self.unit, "")
        return getattr(self, "_" + question.form.replace(" ", "_"))(text)

    def _value(self, text):
        return [str(self.cells[text.removeprefix("What is ")])]

    def _extreme(self, text):
        phrase, word = re.fullmatch(r"For which .+? is (the .+) (highest|lowest)", text).groups()
        values = self.series(phrase)
        wanted = max(values) if word == "highest" else min(values)
        return [
            label for label, value in zip(self.table.labels, values, strict=True) if value == wanted
        ]

    def _rank(self, text):
        phrase, word = re.fullmatch(
            r"For which .+? is (the .+) (second|third) highest", text
        ).groups()
        values = self.series(phrase)
        above = {"second": 1, "third": 2}[word]
        pairs = zip(self.table.labels, values, strict=True)
        assert len([v for v in values if v >= sorted(values)[-1 - above]]) == above + 1
        return [label for label, value in pairs if sum(other > value for other in values) == above]

    def _leader(self, text):
        label = text.split(f" {self.name} {self.table.across.at} ")[1]
        column = self.table.labels.index(label)
        values = [self.value(row, column) for row in range(len(self.table.series))]
        return [
            name
            for name, value in zip(self.table.series, values, strict=True)
            if value == max(values)
        ]

    def _difference(self, text):
        first, second = text.removeprefix("By how much is ").split(" higher than ")
        assert self.cells[first] > self.cells[second]
        return [str(self.cells[first] - self.cells[second])]

    def _compare(self, text):
        first, second = text.removeprefix("Is ").split(" higher than ")
        assert self.cells[first] != self.cells[second]
        return ["yes" if self.cells[first] > self.cells[second] else "no"]

    def _sum(self, text):
        name = text.removeprefix("What is the sum of ")
        if f" of all {self.table.group.plural} " in name if self.table.group else False:
            column = self.table.labels.index(name.split(f" {self.table.across.at} ")[-1])
            return [str(sum(self.value(row, column) for row in range(len(self.table.series))))]
        return [str(sum(self.series(name.split(" over all ")[0])))]

    def _mean(self, text):
        values = self.series(text.removeprefix("What is the mean of ").split(" over all ")[0])
        mean = sum(values) / len(values)
        return [str(n) for n in [Fraction(round(mean * 10), 10)] if abs(n - mean) < Fraction(1, 20)]

    def _above(self, text):
        phrase, limit = re.fullmatch(
            r"For how many .+? is (the .+) above ([\d.]+).*", text
        ).groups()
        assert number(limit) not in self.series(phrase)
        return [str(sum(value > number(limit) for value in self.series(phrase)))]

    def _labels(self, text):
        return [str(len(self.table.labels))]

    def _series(self, text):
        return [str(len(self.table.series))]

    def _colour(self, text):
        names = self.table.labels if self.table.kind == "pie" else self.table.series
        pairs = list(zip(names, self.table.colours.names, strict=True))
        return [c for n, c in pairs if f"for {n}" in text] + [
            n for n, c in pairs if f"colour {c} " in text
        ]

    def _trend(self, text):
        phrase = re.fullmatch(r"Is (the .+) higher or lower .+", text)[1]
        phrase = phrase.removesuffix(f" {self.table.across.at} {self.table.labels[-1]}")
        first, *_, last = self.series(phrase)
        return ["higher" if last > first else "lower"] if first != last else []

    def _title(self, text):
        return [self.table.title]

    def _kind(self, text):
        return [KIND_NAMES[self.table.kind]]

    def _table(self, text):
        lines = [[self.table.across.noun, *(name or self.name for name in self.table.series)]]
        for column, label in enumerate(self.table.labels):
            lines.append(
                [label, *(self.table.text(values[column]) for values in self.table.values)]
            )
        return ["\n".join(" | ".join(line) for line in lines)]

    def _box_value(self, text):
        part, label = re.fullmatch(
            rf"What is the (.+) of the .+ {self.table.across.at} (.+)\? The .+\.", text
        ).groups()
        return [str(self.value(QUARTILES.index(part), self.table.labels.index(label)))]

    def _box_extreme(self, text):
        medians = [self.value(2, column) for column in range(len(self.table.labels))]
        wanted = max(medians) if text.endswith("highest") else min(medians)
        return [
            label
            for label, value in zip(self.table.labels, medians, strict=True)
            if value == wanted
        ]

    def _box_spread(self, text):
        column = self.table.labels.index(text.split(f" {self.table.across.at} ")[-1])
        return [str(self.value(3, column) - self.value(1, column))]


def same(given: str, worked_out: str) -> bool:
    try:
        return number(given) == number(worked_out)
    except ValueError:
        return given == worked_out


@pytest.mark.parametrize("kind", KINDS)
def test_every_question_has_one_answer_and_it_is_the_given_one(kind):
    forms = Counter()
    for table, rng in tables(kind):
        reader = ChartReader(table)
        for question in some_questions(rng, table, 100):
            answers = reader.answers(question)
            assert len(answers) == 1, (question, table)
            assert same(question.answer, answers[0]), (question, answers, table)
            forms[question.form] += 1
    assert len(forms) >= 6
    assert kind == "box" or {"value", "compare", "difference"} <= set(forms)


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_can_be_read_off_the_chart(kind):
    for table, _ in tables(kind):
        assert len(set(table.labels)) == len(table.labels) >= 2
        assert len(set(table.series)) == len(table.series)
        assert len(set(table.colours.codes)) == len(table.colours.codes)
        values = [value for row in table.values for value in row]
        assert min(values) > 0
        assert max(values) <= table.top
        if not table.printed:
            assert all(2 * value % table.step == 0 for value in values)


@pytest.mark.parametrize("kind", ["stacked", "area"])
def test_stacks_stay_on_the_axis_and_add_what_can_be_added(kind):
    for table, _ in tables(kind):
        assert max(map(sum, zip(*table.values, strict=True))) <= table.top
        assert table.quantity.adds


def test_lines_never_share_a_point_and_follow_an_order():
    for table, _ in tables("line"):
        assert table.across.ordered
        assert all(len(set(column)) == len(column) for column in zip(*table.values, strict=True))


def test_pies_make_a_hundred_of_different_shares():
    for table, _ in tables("pie"):
        (shares,) = table.values
        assert sum(shares) == 100
        assert min(shares) >= 4
        assert len(set(shares)) == len(shares)


def test_boxes_rise_from_whisker_to_whisker():
    for table, _ in tables("box"):
        assert all(
            list(column) == sorted(set(column)) for column in zip(*table.values, strict=True)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_captions_say_what_is_true(kind):
    for table, rng in tables(kind):
        text = caption_of(rng, table)
        assert table.title in text
        assert KIND_NAMES[kind] in text
        assert all(label in text for label in table.labels)
        for row in range(len(table.series)) if kind != "box" else [2]:
            values = table.values[row]
            for word, wanted in (("highest", max(values)), ("lowest", min(values))):
                label = table.labels[values.index(wanted)]
                if values.count(wanted) == 1:
                    assert f"{word} {table.across.at} {label} ({table.text(wanted)})" in text


def test_no_form_is_left_unasked():
    seen = {
        q.form
        for kind in KINDS
        for table, rng in tables(kind)
        for q in some_questions(rng, table, 100)
    }
    assert seen == {*FORMS, "box value", "box extreme", "box spread"}

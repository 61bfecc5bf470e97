"""Answers are derived again, from the words of the descriptions alone, where each must be the only one possible."""

import pytest

from sailvit.synthetic.world.source import WorldSource
from sailvit.synthetic.world.tasks import EVAL_TASKS, IMAGE_TASKS, TASKS
from sailvit.synthetic.world.vocabulary import vocabulary

SIDES = {
    "left of": lambda a, b: "left" in a and "right" in b,
    "right of": lambda a, b: "right" in a and "left" in b,
    "above": lambda a, b: "top" in a and "bottom" in b,
    "below": lambda a, b: "bottom" in a and "top" in b,
}


def asked(task, split="train", count=200):
    source = WorldSource(split, f"read_{task}", count, seed=1)
    for position in range(count):
        user, assistant = source[position].turns
        description, question = user.text.split("\n")
        yield [phrase.split() for phrase in description.split(" , ")], question, assistant.text


def place(thing):
    return " ".join(thing[:2])


def name(thing):
    return " ".join(thing[3:])


def only(found):
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("task", "index"), [("colour", 3), ("shape", 4)])
def test_an_attribute_is_that_of_the_thing_at_the_place(task, index):
    for things, question, answer in asked(task):
        assert only([thing[index] for thing in things if place(thing) in question]) == answer


def test_where_and_size_are_those_of_the_named_thing():
    for things, question, answer in asked("where"):
        assert only([place(thing) for thing in things if name(thing) in question]) == answer
    for things, question, answer in asked("size"):
        assert only([thing[2] for thing in things if name(thing) in question]) == answer


def test_beside_has_a_single_thing_on_the_side():
    for things, question, answer in asked("beside"):
        anchor = only([thing for thing in things if name(thing) in question])
        lies = only([lies for side, lies in SIDES.items() if side in question])
        assert only([" ".join(thing[2:]) for thing in things if lies(thing, anchor)]) == answer


def test_relations_hold_or_not_and_both_about_equally_often():
    answers = []
    for things, question, answer in asked("relation", count=400):
        side = only([side for side in SIDES if side in question])
        before, after = question.split(side)
        first = only([thing for thing in things if name(thing) in before])
        second = only([thing for thing in things if name(thing) in after])
        assert SIDES[side](first, second) == (answer == "yes")
        answers.append(answer)
    assert 0.42 < answers.count("yes") / len(answers) < 0.58


def test_counts_are_those_of_the_description():
    for things, question, answer in asked("count"):
        word = (
            question.removeprefix("how many ").removesuffix(" are there ?").removesuffix(" shapes")
        )
        group = {"crosses": "cross", **{f"{s}s": s for s in ("circle", "square", "triangle")}}.get(
            word, word
        )
        assert sum(group in thing for thing in things) == int(answer)


def test_charts_answer_by_height():
    for bars, question, answer in asked("tallest"):
        extreme = max if "tallest" in question else min
        assert extreme(bars, key=lambda bar: int(bar[2]))[0] == answer
    for bars, question, answer in asked("height"):
        assert only([bar[2] for bar in bars if f" {bar[0]} " in question]) == answer


def test_writings_are_read_in_order():
    for (words,), _, answer in asked("ocr"):
        assert words[2:] == answer.split()


def test_sums_are_right():
    source = WorldSource("train", "sum", 200)
    for position in range(200):
        user, assistant = source[position].turns
        left, sign, right = user.text.split("\n")[0].split()
        expected = int(left) + int(right) * (1 if sign == "plus" else -1)
        assert int(assistant.text.replace(" ", "")) == expected


def test_a_fine_caption_is_the_description():
    for phrases, _, answer in asked("fine"):
        assert answer == " , ".join(" ".join(phrase) for phrase in phrases)


@pytest.mark.parametrize("task", EVAL_TASKS)
def test_no_single_answer_scores_high_on_an_evaluated_task(task):
    answers = [answer for _, _, answer in asked(task, "held_out", 300)]
    assert max(answers.count(answer) for answer in set(answers)) / len(answers) < 0.35
    assert task in IMAGE_TASKS


def test_every_word_of_the_vocabulary_is_used():
    source = WorldSource("train", dict.fromkeys(TASKS, 1.0), 3000)
    used = {
        word
        for position in range(3000)
        for turn in source[position].turns
        for word in turn.text.split()
    }
    assert used - {"<image>"} == set(vocabulary())

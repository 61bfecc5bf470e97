"""Scores counted by hand, and the interval of a known gain."""

import json

import pytest

from sailvit.evaluation.scores import Question, evaluation_json, gain, mean_score, task_scores

QUESTIONS = [Question("colour", f"colour {i}?", "red") for i in range(3)] + [
    Question("count", "how many?", "two")
]


def test_mean_over_tasks_ignores_their_sizes():
    scores = task_scores(["colour"] * 3 + ["count"], [True, False, False, True])
    assert scores == {"colour": pytest.approx(1 / 3), "count": 1.0}
    assert mean_score(scores) == pytest.approx(2 / 3)
    assert mean_score({}) == 0


def test_gain_of_equal_models_is_nothing_and_of_perfect_ones_everything():
    tasks = ["a"] * 5 + ["b"] * 5
    same = gain(tasks, [True, False] * 5, [True, False] * 5, seed=0)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    whole = gain(tasks, [False] * 10, [True] * 10, seed=0)
    assert (whole.mean, whole.low, whole.high) == (1, 1, 1)


def test_interval_has_the_width_of_the_binomial():
    # 400 questions of one task; base always wrong, refined right on half: standard error is 0.5 / sqrt(400) = 0.025.
    found = gain(["a"] * 400, [False] * 400, [True, False] * 200, seed=1)
    assert found.mean == pytest.approx(0.5)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.025, rel=0.1)
    assert found == gain(["a"] * 400, [False] * 400, [True, False] * 200, seed=1)


def test_evaluation_json_has_scores_examples_and_gain():
    predictions = {"base": ["red", "blue", "blue", "one"], "refined": ["red", "red", "blue", "two"]}
    correct = {
        name: [text == question.answer for text, question in zip(texts, QUESTIONS, strict=True)]
        for name, texts in predictions.items()
    }
    labels = {"base": "base tower"}
    value = evaluation_json(QUESTIONS, predictions, correct, labels=labels, shown=2)
    value = json.loads(json.dumps(value))
    assert value["models"]["base"] == {
        "label": "base tower",
        "mean": pytest.approx(1 / 6),
        "tasks": {"colour": pytest.approx(1 / 3), "count": 0.0},
        "count": 4,
    }
    assert value["models"]["refined"]["label"] == "refined"
    assert value["gain"]["mean"] == pytest.approx(2 / 3)
    assert [example["task"] for example in value["examples"]] == ["colour", "colour", "count"]
    last = value["examples"][-1]
    assert last["predictions"] == {"base": "one", "refined": "two"}
    assert last["correct"] == {"base": False, "refined": True}


def test_examples_are_drawn_by_the_seed():
    questions = [Question("a", str(i), "x") for i in range(50)]

    def drawn(seed):
        said, right = {"m": ["x"] * 50}, {"m": [True] * 50}
        value = evaluation_json(questions, said, right, labels={}, seed=seed, shown=5)
        return [example["question"] for example in value["examples"]]

    assert drawn(1) == drawn(1) != drawn(2)

"""Which option an answer names, version by version."""

import pytest

from sailvit.core.errors import DataError
from sailvit.evaluation.scoring.matching import MATCHERS, infer_choice, read_matcher

ANIMALS = {"A": "cat", "B": "dog", "C": "bird", "D": "fish"}
NAMES_B = [
    *("B", "B.", "(B)", "B) dog", "**B**", "\\boxed{B}", "Answer: B", "Option B", "B-dog", "dog"),
    *("It is a Dog.", "答案是 B 。"),
]
NAMES_NONE = [
    *("b", "A and B", "", "\uff22", "答案是B。", "选B", "'B'", "<answer>B</answer>", "E"),
    *("B\n\nExplanation: it has the ears of one", "B is what I would pick because it barks"),
]


@pytest.mark.parametrize("answer", NAMES_B)
def test_forms_that_name_an_option(answer: str):
    for matcher in MATCHERS:
        assert infer_choice(answer, ANIMALS, matcher) == "B"


@pytest.mark.parametrize("answer", NAMES_NONE)
def test_forms_that_name_none(answer: str):
    assert infer_choice(answer, ANIMALS) is None


def test_a_letter_far_from_the_end_counts_in_old_versions_alone():
    answer = "B is what I would pick because of its ears"
    assert infer_choice(answer, ANIMALS, "before-2025-08") == "B"
    assert infer_choice(answer, ANIMALS, "2025-08") is None


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("The answer is dog", "D"),
        ("The answer is because of this", "B"),
        ("the correct ANSWER  is\n**c** as one sees at once in the picture", "C"),
    ],
)
def test_the_newest_version_reads_the_letter_after_answer_is(answer: str, letter: str):
    assert infer_choice(answer, ANIMALS) == letter
    assert infer_choice(answer, ANIMALS, "2025-08") in (None, "B")


def test_a_declared_letter_must_be_an_option():
    assert infer_choice("My answer is D then, as was seen", {"A": "cat", "B": "dog"}) is None


def test_long_answers_name_nothing_by_text_since_2025_08():
    answer = "there may be a dog but who could tell from so dark a picture as this one"
    assert infer_choice(answer, ANIMALS, "before-2025-08") == "B"
    assert infer_choice(answer, ANIMALS, "2025-08") is None


def test_a_text_within_two_options_names_neither():
    numbers = {"A": "1", "B": "10", "C": "100"}
    assert infer_choice("10", numbers) is None
    assert infer_choice("1", numbers) == "A"


def test_refusals_are_no_option_and_not_unparsed():
    assert infer_choice("I can't process this file. dog", ANIMALS) == "Z"
    assert infer_choice("Z", ANIMALS) == "Z"
    assert infer_choice("Failed to obtain answer via API. A cat", ANIMALS) is None


def test_an_unknown_version_is_named_with_the_known_ones():
    with pytest.raises(DataError, match="2026-06, 2025-08"):
        read_matcher("2024")

"""Scores of multiple-choice questions: each for itself, or right in every rotation of its
options.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

import numpy as np

from sailvit.core.errors import DataError
from sailvit.evaluation.scoring.cells import NOTHING
from sailvit.evaluation.scoring.judging import Inquiry, asked
from sailvit.evaluation.scoring.matching import infer_choice
from sailvit.evaluation.scoring.results import ScoredAnswer, Way
from sailvit.evaluation.scoring.rows import Row, needed, options_of, text
from sailvit.evaluation.scoring.rules import Rules

ROTATION = 10**6
"""Rotation k of question b has the index b + k * ROTATION."""
_ATTEMPTS = 3
"""Times a judge is asked. Then VLMEvalKit draws a random option; here it is a miss."""
_OTHER = "Other Answers"
"""The second option of MMMU's open questions; the first is the right answer."""


@dataclass(frozen=True)
class Choice:
    """An answer to a multiple-choice question."""

    index: str
    """The question's index."""
    question: str
    """The question, for a judge."""
    options: dict[str, str]
    """Texts of the options by their letters."""
    gold: str
    """The letter of the right one."""
    answer: str
    """What was answered."""
    split: str = "none"
    """Its split."""
    groups: tuple[str, ...] = ()
    """Names of the categories it belongs to."""


@dataclass(frozen=True)
class Decision:
    """The letter that an answer was taken for."""

    letter: str | None
    """The letter, Z for a refusal; None: none was found."""
    way: Way
    """How it was found."""


def choice_of(row: Row, answer: str) -> Choice:
    """An answer with the row of its question."""
    groups = [name for column in ("l2-category", "category") if (name := text(row, column))]
    return Choice(
        needed(row, "index"),
        text(row, "question"),
        options_of(row),
        needed(row, "answer"),
        answer,
        text(row, "split") or "none",
        tuple(dict.fromkeys(groups)),
    )


def closed(choice: Choice) -> Choice:
    """An open question of MMMU as one with two options: the right answer, and all others.

    So every answer that contains the right one is right, and so is the letter A alone.
    """
    gold = choice.gold
    if "A" not in choice.options:
        # An answer such as `None`, which was read as nothing, is no option either.
        first = {} if gold == str(NOTHING) else {"A": gold}
        options = {**choice.options, **first, "B": _OTHER}
        choice = replace(choice, options=dict(sorted(options.items())))
    is_letter = len(gold) == 1 and gold in ascii_uppercase
    return replace(choice, gold=gold if is_letter else "A")


def decide(choice: Choice, rules: Rules) -> Decision:
    """The letter of an answer, by the rules or else by a judge."""
    judge, letter = rules.judge, infer_choice(choice.answer, choice.options, rules.matcher)
    if letter is not None or judge is None:
        return Decision(letter, "rule" if letter else "none")
    prompt = rules.prompts["choice"].filled(
        question=choice.question,
        options="\n".join(f"{each}. {text}" for each, text in choice.options.items()),
        prediction=choice.answer,
    )
    for attempt in range(_ATTEMPTS):
        # At temperature 0 each time, as the kit asks here: only other kinds of sets grow warmer.
        reply = asked(judge, Inquiry(choice.index, prompt, attempt, 0.0))
        letter = None if reply is None else infer_choice(reply, choice.options, rules.matcher)
        if letter is not None:
            return Decision(letter, "judge")
    return Decision(None, "none")


def score_choice(choice: Choice, rules: Rules) -> ScoredAnswer:
    """One question for itself."""
    found = decide(choice, rules)
    hit = found.letter is not None and found.letter == choice.gold
    return ScoredAnswer(choice.index, float(hit), found.letter or "", found.way)


def score_rotations(rotations: Sequence[Choice], rules: Rules) -> ScoredAnswer:
    """A question in all rotations of its options: 1 if every one is right.

    A judge is asked only where the rules found nothing wrong, and until one is wrong.
    """
    # All by the rules first: a judge costs money, and one wrong rotation decides.
    without = replace(rules, judge=None)
    letters = [decide(each, without).letter for each in rotations]
    index, shown = rotations[0].index, " ".join(letter or "?" for letter in letters)
    pairs = list(zip(rotations, letters, strict=True))
    if any(letter not in (None, each.gold) for each, letter in pairs):
        return ScoredAnswer(index, 0.0, shown)
    if None not in letters:
        return ScoredAnswer(index, 1.0, shown)
    for each in [each for each, letter in pairs if letter is None]:
        found = decide(each, rules)
        if found.letter != each.gold:
            return ScoredAnswer(index, 0.0, shown, found.way)
    return ScoredAnswer(index, 1.0, shown, "judge")


def rotation_groups(choices: Iterable[tuple[Choice, str]]) -> list[list[Choice]]:
    """The rotations of every question whose base is there, the base first.

    Each choice comes with the index of its base as a column `g_index` gives it, or empty.

    Raises:
        DataError: an index is no whole number, or no base is there.
    """
    groups: defaultdict[int, list[tuple[int, Choice]]] = defaultdict(list)
    for choice, given in choices:
        try:
            # Tables that went through pandas hold whole numbers as `12.0`.
            index = int(float(choice.index))
            base = int(float(given)) if given else index % ROTATION
        except ValueError as error:
            raise DataError(
                f"index {choice.index!r} is not a whole number; expected b for a question and"
                f" b + k * {ROTATION:,} for its rotation k"
            ) from error
        groups[base].append((index, choice))
    ordered = {base: sorted(members, key=lambda pair: pair[0]) for base, members in groups.items()}
    whole = [
        [choice for _, choice in members]
        for base, members in sorted(ordered.items())
        if any(index == base for index, _ in members)
    ]
    if not whole:
        raise DataError(
            f"none of the {sum(map(len, groups.values()))} questions is the base of its rotations;"
            f" expected the index b for a question and b + k * {ROTATION:,} for its rotation k, or"
            " the index of its base in a column g_index"
        )
    return whole


def choice_scores(choices: Sequence[Choice], answers: Sequence[ScoredAnswer]) -> dict[str, float]:
    """Per cent right of every split (`split|Overall`) and of its categories."""
    by_index = {choice.index: choice for choice in choices}
    credits: defaultdict[str, list[float]] = defaultdict(list)
    for answer in answers:
        choice = by_index[answer.index]
        for name in ("Overall", *choice.groups):
            credits[f"{choice.split}|{name}"].append(answer.credit)
    return {name: 100 * float(np.mean(values)) for name, values in credits.items()}

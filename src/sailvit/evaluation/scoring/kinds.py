"""Scores of whole sets, by the kind of their questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import numpy as np

from sailvit.core.errors import DataError
from sailvit.core.formatting import counted
from sailvit.evaluation.scoring import multiple_choice, yes_no
from sailvit.evaluation.scoring.cells import Cell, is_nothing, retyped
from sailvit.evaluation.scoring.graded import (
    extract,
    grade,
    is_solved,
    mathvista_scores,
    mmvet_scores,
)
from sailvit.evaluation.scoring.judge_prompts import Use
from sailvit.evaluation.scoring.judging import Estimate, Inquiry
from sailvit.evaluation.scoring.multiple_choice import Choice, choice_of
from sailvit.evaluation.scoring.ocr import is_read, ocr_scores
from sailvit.evaluation.scoring.refusals import refuse_hidden, refuse_no_gold, refuse_twice
from sailvit.evaluation.scoring.results import ScoredAnswer, SetScore, Way
from sailvit.evaluation.scoring.rows import Row, needed, text
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.scoring.short_answers import MEASURES, right_answers
from sailvit.evaluation.scoring.yes_no import Verdict

Kind = Literal[
    "mcq",
    "circular",
    "mmmu",
    "yes-no",
    "hallusion",
    "pope",
    "mme",
    "ocrbench",
    "mathvista",
    "mmvet",
    "anls",
    "relaxed",
    "vqa",
    "exact",
    "exact-mean",
    "phrases",
]
"""How a set is scored."""
KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds."""
JUDGED: Mapping[Kind, Use] = {
    **dict.fromkeys(("mcq", "circular", "mmmu"), "choice"),
    **dict.fromkeys(("yes-no", "hallusion", "pope", "mme"), "yes-no"),
    "mathvista": "extract",
    "mmvet": "grade",
}
"""What a judge is asked for, by kind; the others never ask one."""
_YES_NO_ATTEMPTS = 5


def read_kind(name: str) -> Kind:
    """The kind of that name; DataError for another."""
    for known in KINDS:
        if known == name:
            return known
    raise DataError(f"there is no kind {name!r}; write one of {', '.join(KINDS)}")


def score_set(
    kind: Kind, rows: Sequence[Row], answers: Sequence[Cell], rules: Rules | None = None
) -> SetScore:
    """The score of a set: `rows` are its questions, `answers` what was answered, as read back
    from a file (`cells.read_back`).

    Raises:
        DataError: a column that the kind needs is missing, no row has a right answer, or no
            row is left to score.
    """
    if not rows or len(rows) != len(answers):
        raise DataError(
            f"{len(answers)} answers for {len(rows)} questions; expected one each, and at least one"
        )
    refuse_twice(rows)
    refuse_hidden(rows)
    rules = rules or Rules()
    made = _SCORERS[kind](rows, answers, rules)
    empty = sum(is_nothing(answer) for answer in answers)
    if empty:
        note = f"{counted(empty, 'answer')} empty or a word such as None: scored as the text nan"
        made = replace(made, notes=(*made.notes, note))
    return replace(made, notes=(*made.notes, *_prompt_notes(kind, made, rules)))


def _prompt_notes(kind: Kind, made: SetScore, rules: Rules) -> list[str]:
    """By which prompt of the user's a judge was asked about this set; nothing where by none."""
    is_asked = rules.judge is not None and made.judged + made.unparsed > 0
    prompt = rules.prompts[JUDGED[kind]] if is_asked and kind in JUDGED else None
    if prompt is None or prompt.file is None:
        return []
    return [f"the judge was asked by {prompt.file} (SHA-256 {prompt.sha256[:12]})"]


@dataclass(frozen=True)
class Cost:
    """What a judge is asked."""

    requests: int
    """Questions it is asked about, each at least once."""
    characters: int
    """Length of those prompts."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.requests + other.requests, self.characters + other.characters)


def judge_cost(kind: Kind, rows: Sequence[Row], answers: Sequence[Cell], rules: Rules) -> Cost:
    """What a judge would be asked about these answers; nothing where they cannot be scored."""
    counting = Estimate()
    # What is wrong with a table is said where it is scored.
    with suppress(DataError):
        score_set(kind, rows, answers, replace(rules, judge=counting))
    return Cost(len(counting.characters), sum(counting.characters.values()))


def _tallied(
    answers: Sequence[ScoredAnswer], score: float | None, metrics: Mapping[str, float]
) -> SetScore:
    return SetScore(
        score,
        metrics,
        tuple(answers),
        total=len(answers),
        unparsed=sum(each.way == "none" for each in answers),
        judged=sum(each.way == "judge" for each in answers),
    )


def _multiple_choice(
    rows: Sequence[Row], answers: Sequence[Cell], rules: Rules, *, is_mmmu: bool = False
) -> SetScore:
    choices = [choice_of(row, str(said)) for row, said in zip(rows, answers, strict=True)]
    if is_mmmu:
        choices = [multiple_choice.closed(choice) for choice in choices]
    work = partial(multiple_choice.score_choice, rules=rules)
    scored = rules.over(work, choices)
    return _by_split(choices, scored, _tallied(scored, None, {}))


def _rotations(rows: Sequence[Row], answers: Sequence[Cell], rules: Rules) -> SetScore:
    choices = [
        (choice_of(row, str(said)), text(row, "g_index"))
        for row, said in zip(rows, answers, strict=True)
    ]
    groups = multiple_choice.rotation_groups(choices)
    work = partial(multiple_choice.score_rotations, rules=rules)
    scored = rules.over(work, groups)
    bases, every = [group[0] for group in groups], [each for group in groups for each in group]
    # Answers are counted, not groups: three of four rotations may be understood.
    without = replace(rules, judge=None)
    unparsed = sum(multiple_choice.decide(each, without).letter is None for each in every)
    tally = _tallied(scored, None, {})
    if rules.judge is not None:
        unparsed = tally.unparsed
    known = SetScore(None, {}, tuple(scored), len(every), unparsed, tally.judged)
    made = _by_split(bases, scored, known)
    return replace(made, notes=(*made.notes, *_lacking(groups)))


def _lacking(groups: Sequence[Sequence[Choice]]) -> list[str]:
    """What must be said of questions that do not come in all rotations."""
    short = [len(group) for group in groups if len(group) < len(group[0].options)]
    if not short:
        return []
    if max(map(len, groups)) == 1:
        return ["no rotations: plain accuracy, which is higher"]
    return [f"{len(short)} of {len(groups)} questions have fewer rotations than options"]


def _by_split(
    choices: Sequence[Choice], scored: Sequence[ScoredAnswer], known: SetScore
) -> SetScore:
    """The score of the split that leaderboards show: `validation` where there is one, else the
    only one; of several others, all rows together.
    """
    metrics = multiple_choice.choice_scores(choices, scored)
    splits = sorted({choice.split for choice in choices})
    shown = "validation" if "validation" in splits else splits[0]
    notes: tuple[str, ...] = ()
    score = metrics[f"{shown}|Overall"]
    if len(splits) > 1 and "validation" not in splits:
        score = 100 * float(np.mean([each.credit for each in scored]))
        notes = (f"all splits together: {', '.join(splits)}",)
    elif len(splits) > 1:
        notes = ("split validation",)
    notes += _misnamed(choices)
    return SetScore(score, metrics, known.answers, known.total, known.unparsed, known.judged, notes)


def _misnamed(choices: Sequence[Choice]) -> tuple[str, ...]:
    """What must be said of right answers that are no letter of an option, such as `a`."""
    count = sum(choice.gold not in choice.options for choice in choices)
    if not count:
        return ()
    return (f"{count} of {len(choices)} right answers are no letter of an option: always a miss",)


def _yes_no(
    rows: Sequence[Row],
    answers: Sequence[Cell],
    rules: Rules,
    *,
    numbers: Callable[[Sequence[Verdict]], dict[str, float]],
) -> SetScore:
    pairs = [(row, str(said)) for row, said in zip(rows, answers, strict=True)]
    found = rules.over(lambda pair: _said(*pair, rules), pairs)
    verdicts, scored = [], []
    for (row, _), (said, is_judged) in zip(pairs, found, strict=True):
        names = (text(row, name) for name in ("category", "l2-category", "image_path"))
        verdict = Verdict(needed(row, "index"), said, needed(row, "answer"), *names)
        way: Way = "none" if said is None else "judge" if is_judged else "rule"
        verdicts.append(verdict)
        scored.append(ScoredAnswer(verdict.index, float(verdict.right), said or "", way))
    metrics = numbers(verdicts)
    return _tallied(scored, metrics["Overall"], metrics)


def _said(row: Row, answer: str, rules: Rules) -> tuple[str | None, bool]:
    """Yes or No, and whether a judge said it."""
    judge, said = rules.judge, yes_no.infer_yes_no(answer, rules.matcher)
    if said is not None or judge is None:
        return said, False
    prompt = rules.prompts["yes-no"].filled(question=text(row, "question"), prediction=answer)
    for attempt in range(_YES_NO_ATTEMPTS):
        # Warmer each time: at temperature 0 the same question would have the same reply.
        inquiry = Inquiry(needed(row, "index"), prompt, attempt, 0.5 * attempt)
        said = yes_no.infer_yes_no(judge.reply(inquiry) or "", rules.matcher)
        if said is not None:
            return said, True
    return None, False


def _ocr(rows: Sequence[Row], answers: Sequence[Cell], rules: Rules) -> SetScore:
    del rules  # No judge is ever asked about OCRBench.
    scored, hits = [], []
    for row, said in zip(rows, answers, strict=True):
        category = text(row, "category")
        hit = is_read(str(said), right_answers(needed(row, "answer")), category)
        scored.append(ScoredAnswer(needed(row, "index"), float(hit), str(said)))
        hits.append((category, hit))
    metrics = ocr_scores(hits)
    return _tallied(scored, metrics["Final Score Norm"], metrics)


def _mathvista(rows: Sequence[Row], answers: Sequence[Cell], rules: Rules) -> SetScore:
    pairs = list(zip(rows, answers, strict=True))
    found = rules.over(lambda pair: extract(*pair, rules), pairs)
    # What was extracted goes through a file as well, before it is compared.
    finals = retyped([cell for cell, _ in found])
    scored = []
    for row, final, (_, by_rule) in zip(rows, finals, found, strict=True):
        credit = float(is_solved(row, final, rules.matcher))
        is_empty = str(final) == "nan"
        way: Way = "rule" if by_rule else "none" if is_empty else "judge"
        shown = "" if is_empty else str(final)
        scored.append(ScoredAnswer(needed(row, "index"), credit, shown, way))
    metrics = mathvista_scores(rows, scored)
    made = _tallied(scored, metrics["Overall"], metrics)
    if rules.judge is not None:
        return made
    note = "rules alone, without the judge that extracts answers: a lower bound"
    return SetScore(made.score, metrics, made.answers, made.total, made.unparsed, 0, (note,))


def _mmvet(rows: Sequence[Row], answers: Sequence[Cell], rules: Rules) -> SetScore:
    if rules.judge is None:
        note = "MM-Vet is graded by a judge alone; name one with --judge"
        return SetScore(None, total=len(rows), unparsed=len(rows), notes=(note,))
    pairs = list(zip(rows, answers, strict=True))
    scored = rules.over(lambda pair: grade(pair[0], str(pair[1]), rules), pairs)
    metrics = mmvet_scores(rows, scored)
    return _tallied(scored, metrics["Overall"], metrics)


def _short(rows: Sequence[Row], answers: Sequence[Cell], rules: Rules, *, measure: str) -> SetScore:
    golds = [right_answers(needed(row, "answer")) for row in rows]
    refuse_no_gold(rows, golds)
    scored = [
        ScoredAnswer(
            needed(row, "index"), MEASURES[measure](str(said), right, rules.matcher), str(said)
        )
        for row, said, right in zip(rows, answers, golds, strict=True)
    ]
    metrics = _means(rows, scored)
    single = sum(len(right) == 1 for right in golds) if measure == "vqa" else 0
    note = f"{counted(single, 'question')} with one right answer, which VQA accuracy never counts"
    return replace(_tallied(scored, metrics["Overall"], metrics), notes=(note,) if single else ())


def _means(rows: Sequence[Row], scored: Sequence[ScoredAnswer]) -> dict[str, float]:
    """Mean credit in per cent: of all, and per split or else per category."""
    groups: dict[str, list[float]] = {}
    column = "split" if any(text(row, "split") for row in rows) else "category"
    for row, each in zip(rows, scored, strict=True):
        for name in filter(None, ("Overall", text(row, column))):
            groups.setdefault(name, []).append(each.credit)
    return {name: 100 * float(np.mean(credits)) for name, credits in groups.items()}


_SCORERS: Mapping[Kind, Callable[[Sequence[Row], Sequence[Cell], Rules], SetScore]] = {
    "mcq": _multiple_choice,
    "mmmu": partial(_multiple_choice, is_mmmu=True),
    "circular": _rotations,
    "yes-no": partial(_yes_no, numbers=yes_no.accuracy),
    "hallusion": partial(_yes_no, numbers=yes_no.hallusion_scores),
    "pope": partial(_yes_no, numbers=yes_no.pope_scores),
    "mme": partial(_yes_no, numbers=yes_no.mme_scores),
    "ocrbench": _ocr,
    "mathvista": _mathvista,
    "mmvet": _mmvet,
    "anls": partial(_short, measure="anls"),
    "relaxed": partial(_short, measure="relaxed"),
    "vqa": partial(_short, measure="vqa"),
    "exact": partial(_short, measure="exact"),
    "exact-mean": partial(_short, measure="exact-mean"),
    "phrases": partial(_short, measure="phrases"),
}

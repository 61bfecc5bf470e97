"""How models were asked, what their answers scored, and how they compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sailvit.core.errors import DataError
from sailvit.evaluation.comparison import Comparison, compare_models
from sailvit.evaluation.scoring.results import SetScore
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.suites.average import Average
from sailvit.evaluation.suites.prompts import Style
from sailvit.evaluation.suites.tilings import Tiling


@dataclass(frozen=True)
class Asking:
    """How models are asked."""

    style: Style = "vlmevalkit"
    """Style of the prompts."""
    forms: Mapping[str, Mapping[str, str | bool]] = field(default_factory=dict)
    """Changes to the prompts of single sets."""
    longest: int = 256
    """Most tokens of an answer."""
    batch: int = 16
    """Questions answered at the same time."""
    limit: int | None = None
    """Questions of each set; None: all."""
    tiling: Tiling = "recipe"
    """How images are cut into tiles."""
    stage: str | None = None
    """Stage of the runs; None: the last."""
    device: str | None = None
    """Device; None: the first GPU, else the CPU."""
    bf16: bool = False
    """Whether weights are kept in bf16."""


@dataclass(frozen=True)
class ModelScores:
    """A model's scores."""

    label: str
    """Its name in tables and files."""
    scores: Mapping[str, SetScore]
    """Scores by set."""
    failed: Mapping[str, int]
    """Questions that could not be asked, by set."""
    average: Average
    """OpenCompass' average, or what is missing for it."""
    tiles: str = ""
    """How its images were cut, in words."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was asked and scored, as results.json holds it."""


def settings_of(asking: Asking, rules: Rules) -> dict[str, Any]:
    """What decides about scores beside model and questions, as results.json holds it."""
    return {
        "matcher": rules.matcher,
        "judge": rules.judge.name if rules.judge else None,
        "judge prompts": rules.told_prompts,
        "prompts": asking.style,
        "changed prompts": {name: dict(form) for name, form in asking.forms.items()},
        "tiling": asking.tiling,
        "max new tokens": asking.longest,
        "questions per set": asking.limit,
        "dtype": "bfloat16" if asking.bf16 else "as stored",
    }


def comparison(models: Sequence[ModelScores]) -> list[Comparison]:
    """Every model against the first; empty for one model, and where no set has a score.

    Raises:
        DataError: two models were asked or scored by other settings.
    """
    for each in models[1:]:
        _refuse_other_settings(models[0], each)
    answers = {
        each.label: {name: score.answers for name, score in each.scores.items() if score.answers}
        for each in models
    }
    return compare_models(answers) if len(models) > 1 and all(answers.values()) else []


def _refuse_other_settings(one: ModelScores, other: ModelScores) -> None:
    for name in one.settings.keys() | other.settings.keys():
        mine, theirs = one.settings.get(name), other.settings.get(name)
        if mine != theirs:
            raise DataError(
                f"{one.label} and {other.label} are not comparable: {name} was {mine!r} for the"
                f" first and {theirs!r} for the second; evaluate both by one command"
            )


def tiles_note(models: Sequence[ModelScores]) -> str:
    """What must be said where each model's own recipe cuts images in another way; else empty."""
    ways = {each.label: each.tiles for each in models}
    if len(set(ways.values())) < 2:
        return ""
    told = "; ".join(f"{label}: {way}" for label, way in ways.items())
    return f"images are not cut alike, which is part of every difference ({told})"


def results(models: Sequence[ModelScores]) -> dict[str, Any]:
    """The value of results.json."""
    return {
        **models[0].settings,
        "models": {
            each.label: {
                "sets": {
                    name: {key: value for key, value in asdict(score).items() if key != "answers"}
                    for name, score in each.scores.items()
                },
                "average": asdict(each.average),
                "not asked": dict(each.failed),
                "tiles": each.tiles,
            }
            for each in models
        },
        "comparison": [asdict(each) for each in comparison(models)],
        "comparison note": tiles_note(models),
    }

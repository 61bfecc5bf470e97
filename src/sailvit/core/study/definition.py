"""A study: trainings that are repeated with one setting changed at a time, or with all
combinations, and what is claimed of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from sailvit.core.config import Config
from sailvit.core.recipe import PARTS, Count, Positive, SourceConfig
from sailvit.core.study.units import NATS, POINTS, Unit

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")]
"""A name that can be a file's."""
REFERENCE = "$"
"""Begins the name of a part that the study makes: `$new/NAME`, or `$STEP/PART`."""
NEW = "new"
"""In a reference: a part with random weights."""


class NewTower(Config):
    """A small tower with random weights."""

    family: Literal["siglip", "aimv2", "dinov2"]
    """Its architecture."""
    width: Count = 128
    """D, the width of its features."""
    blocks: Count = 4
    """Transformer blocks."""
    heads: Count = 2
    """Attention heads."""
    size: Count = 64
    """Height and width of a tile, in pixels."""
    patch: Count = 8
    """Height and width of a patch, in pixels."""


class NewLanguage(Config):
    """A small language with random weights and the demo world's words."""

    family: Literal["llama", "qwen3", "gpt_neox"]
    """Its architecture."""
    width: Count = 128
    """D, the width of its states."""
    blocks: Count = 4
    """Transformer blocks."""
    heads: Count = 2
    """Attention heads."""


class StepChange(Config):
    """How a level of a factor changes a step; applied in the order of the fields."""

    recipe: str | None = None
    """Another recipe, by file or shipped name."""
    stages: list[str] | None = None
    """Only these stages of it."""
    joint: Literal["samples", "compute"] | None = None
    """All parts train at once in one stage named `joint`, over the stages' mixtures, with the
    settings of the first stage in which the tower trains: on as many samples as all stages
    together, or for as many FLOPs."""
    scale: Positive | None = None
    """Factor on the length of every stage."""
    set: dict[str, Any] = {}
    """Settings by their path in the recipe, such as `stages.fine.optim.lr`."""


class Step(StepChange):
    """One training of a cell."""

    recipe: str
    """A recipe, by file or shipped name."""
    seed: int = 0
    """Added to the cell's seed, which together are the recipe's."""
    shared: bool = False
    """Whether all seeds share it: its recipe's seed is `seed` alone."""


class Contrast(Config):
    """The two levels that are compared everywhere."""

    factor: Name
    """The factor that has them."""
    base: Name
    """The level that others are compared with."""
    refined: Name
    """The level that is to be better."""
    across: list[Name] = []
    """Further levels of the factor that are run at every level of the other factors."""
    seeds: Count | None = None
    """Seeds of base and refined where all other factors are at their first levels; None: those
    of the study."""


class Measure(Config):
    """What is measured on a cell's model."""

    kind: Literal["world", "suite", "probe", "text"] = "world"
    """`world`: the share of exact answers to the demo world's held-out questions, which differ
    from seed to seed. `suite`: scores of the sets of `sailvit evaluate`. `probe`: what the tower
    alone knows, by `sailvit probe` at its last layer. `text`: the language's negative
    log-likelihood per token of texts without images, in nats; less is better."""
    of: Name
    """The step whose model, or tower, is measured."""
    tasks: list[str] = []
    """Tasks of the world, sets of the suite, or probes; none: those by which the demo measures a
    tower, all sets, or all that the data allow."""
    per_task: Count = 150
    """Questions of every task of the world, or of every set of the suite `demo`; for `text`: how
    many texts are read."""
    suite: Literal["opencompass", "demo"] = "opencompass"
    """For `suite`: which one."""
    data: list[str] = []
    """For `suite`: the folder of its TSV files. For `probe`: what `sailvit probe --data` takes;
    none: `sailvit:world`, drawn anew for every seed."""
    source: SourceConfig | None = None
    """For `text`: where its texts come from, as a source of a recipe. They should be held out
    from all training. The cell's seed draws which are read."""
    over: list[Name] | None = None
    """Factors at whose levels it is measured, while the others, but for the contrast's, are at
    their first levels; None: it is measured in every cell."""

    @property
    def unit(self) -> Unit:
        """What its values are counted in."""
        return NATS if self.kind == "text" else POINTS

    @model_validator(mode="after")
    def _has_texts(self) -> Measure:
        if self.kind == "text" and self.source is None:
            raise ValueError(
                "a measure of kind text needs `source`, such as {format: chat, path: texts.jsonl}"
            )
        return self


class Claim(Config):
    """A sentence that the study tests."""

    says: str
    """The sentence."""
    better: Name | None = None
    """The level that is said to be better; None: the contrast's `refined`."""
    than: Name | None = None
    """The level it is compared with; None: the contrast's `base`."""
    over: list[Name] = []
    """Factors at each level of which it is said to hold; none: where all others are at their
    first levels."""
    measure: Name | None = None
    """What is compared; None: the study's first measure."""
    by: float = 0.0
    """How much better it is said to be at least: points, or nats fewer for a measure of texts."""


class Study(Config):
    """Everything that determines a study."""

    name: Name
    """Names its folders."""
    design: Literal["one_factor", "grid"] = "one_factor"
    """`one_factor`: each factor takes its other levels while the others stay at their first;
    `grid`: all combinations."""
    seeds: Count = 3
    """Seeds of every cell: 0, 1, 2, ..."""
    towers: dict[Name, NewTower] = {}
    """New towers, which recipes name as `$new/NAME`."""
    languages: dict[Name, NewLanguage] = {}
    """New languages, likewise."""
    set: dict[str, Any] = {}
    """Settings of every recipe, by their path, applied first."""
    steps: dict[Name, Step] = Field(min_length=1)
    """A cell's trainings in order; each may take parts of earlier ones as `$STEP/PART`."""
    factors: dict[Name, dict[Name, dict[Name, StepChange | None]]]
    """Factors with their levels, the first of which is the default. A level names the steps
    that it changes; None leaves the step out, and what it would have trained is what it was
    given."""
    contrast: Contrast
    """What is compared everywhere."""
    measures: dict[Name, Measure] = Field(min_length=1)
    """What is measured, by name; the first is what claims are about."""
    claims: list[Claim] = []
    """What is tested."""

    @model_validator(mode="after")
    def _names_hold_together(self) -> Study:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def levels(self, factor: str) -> list[str]:
        """The names of a factor's levels, the default first."""
        return list(self.factors[factor])

    def others(self) -> list[str]:
        """All factors but the contrast's."""
        return [name for name in self.factors if name != self.contrast.factor]

    def measured(self, levels: Mapping[str, str]) -> dict[str, Measure]:
        """What is measured in a cell of these levels."""
        default = self.defaults()
        changed = {name for name in self.others() if levels[name] != default[name]}
        return {
            name: measure
            for name, measure in self.measures.items()
            if measure.over is None or changed <= set(measure.over)
        }

    def defaults(self) -> dict[str, str]:
        """The first level of every factor."""
        return {name: next(iter(levels)) for name, levels in self.factors.items()}

    def _problems(self) -> Iterator[str]:
        if both := set(self.towers) & set(self.languages):
            yield f"a tower and a language are both named {sorted(both)[0]}; rename one"
        if empty := [factor for factor, levels in self.factors.items() if not levels]:
            yield f"factor {empty[0]} has no levels; the first is its default"
        if self.contrast.factor not in self.factors:
            yield _unknown("contrast.factor", self.contrast.factor, self.factors)
            return
        named = self.levels(self.contrast.factor)
        for place, name in _named_levels(self):
            if name is not None and name not in named:
                yield _unknown(place, name, named)
        for place, step in _named_steps(self):
            if step not in self.steps:
                yield _unknown(place, step, self.steps)
        yield from self._comparison_problems()
        yield from self._seed_problems()
        yield from self._claims_problems()
        yield from self._reference_problems()

    def _seed_problems(self) -> Iterator[str]:
        """A sentence for every seed that would be replaced by the cell's."""
        for place, settings in _named_settings(self):
            if "seed" in settings:
                yield (
                    f"{place}.seed would have no effect, as the study gives every cell its seed; use"
                    " `seeds` of the study, or `seed` of a step, which is added to the cell's"
                )

    def _comparison_problems(self) -> Iterator[str]:
        """A sentence for levels that would be compared with themselves, or share their files."""
        contrast = self.contrast
        pairs = {"contrast": (contrast.base, contrast.refined)} | {
            f"claims.{number}": (claim.than or contrast.base, claim.better or contrast.refined)
            for number, claim in enumerate(self.claims)
        }
        for place, (one, other) in pairs.items():
            if one == other:
                yield f"{place}: level {one} is compared with itself; name two levels"
        for factor, levels in self.factors.items():
            known: dict[str, str] = {}
            for level in levels:
                if (first := known.setdefault(level.lower(), level)) != level:
                    yield (
                        f"factors.{factor}: levels {first} and {level} differ in capitals alone,"
                        " which are one file where disks do not tell them apart; rename one"
                    )

    def _claims_problems(self) -> Iterator[str]:
        for number, claim in enumerate(self.claims):
            for factor in claim.over:
                if factor not in self.others():
                    yield _unknown(f"claims.{number}.over", factor, self.others())
            if claim.measure is not None and claim.measure not in self.measures:
                yield _unknown(f"claims.{number}.measure", claim.measure, self.measures)
        for name, measure in self.measures.items():
            for factor in measure.over or ():
                if factor not in self.others():
                    yield _unknown(f"measures.{name}.over", factor, self.others())

    def _reference_problems(self) -> Iterator[str]:
        """A sentence for every reference that names no part made before its step."""
        new = {*self.towers, *self.languages}
        for place, step, value in self.references():
            owner, _, part = value.removeprefix(REFERENCE).partition("/")
            if owner == NEW:
                if part not in new:
                    yield _unknown(place, part, sorted(new))
                continue
            earlier = list(self.steps)[: list(self.steps).index(step)]
            if owner not in earlier:
                yield _unknown(place, owner, [NEW, *earlier])
            elif part not in PARTS:
                yield _unknown(place, part, PARTS)

    def references(self) -> Iterator[tuple[str, str, str]]:
        """Place, step and text of every setting that refers to a part that the study makes."""
        for step, whole in self.steps.items():
            changes: dict[str, Mapping[str, Any]] = {f"steps.{step}": whole.set}
            for factor, levels in self.factors.items():
                for level, changed in levels.items():
                    if (change := changed.get(step)) is not None:
                        changes[f"factors.{factor}.{level}.{step}"] = change.set
            for place, settings in changes.items():
                for path, value in settings.items():
                    if isinstance(value, str) and value.startswith(REFERENCE):
                        yield f"{place}.set.{path}", step, value


def _named_levels(study: Study) -> Iterator[tuple[str, str | None]]:
    """Where levels of the contrast's factor are named, and how."""
    contrast = study.contrast
    yield "contrast.base", contrast.base
    yield "contrast.refined", contrast.refined
    yield from (("contrast.across", level) for level in contrast.across)
    for number, claim in enumerate(study.claims):
        yield f"claims.{number}.better", claim.better
        yield f"claims.{number}.than", claim.than


def _named_steps(study: Study) -> Iterator[tuple[str, str]]:
    """Where steps are named, and how."""
    for factor, levels in study.factors.items():
        for level, changes in levels.items():
            yield from ((f"factors.{factor}.{level}", step) for step in changes)
    yield from ((f"measures.{name}.of", each.of) for name, each in study.measures.items())


def _named_settings(study: Study) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every `set`, and where it stands."""
    yield "set", study.set
    yield from ((f"steps.{name}.set", step.set) for name, step in study.steps.items())
    for factor, levels in study.factors.items():
        for level, changes in levels.items():
            for step, change in changes.items():
                if change is not None:
                    yield f"factors.{factor}.{level}.{step}.set", change.set


def _unknown(place: str, name: str, known: object) -> str:
    names = ", ".join(map(str, known)) if hasattr(known, "__iter__") else str(known)
    return f"{place}: there is no {name!r}; expected one of {names or 'none'}"

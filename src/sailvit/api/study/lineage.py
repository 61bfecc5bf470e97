"""From cells to trainings: one per stage, each known by what it depends on, so that cells share
those that are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sailvit.api.study.changes import changed
from sailvit.api.study.contents import Contents, Known
from sailvit.api.study.new_parts import new_parts
from sailvit.api.study.sources import SCHEME, is_ours, sources_of, with_sources
from sailvit.core.errors import RecipeError
from sailvit.core.recipe import PARTS, ModelConfig, Part, Recipe, Stage
from sailvit.core.recipe.differences import FREE
from sailvit.core.run import RunFolder
from sailvit.core.study.cells import Cell
from sailvit.core.study.definition import REFERENCE, Measure, StepChange, Study
from sailvit.data.lengths.fingerprints import digest
from sailvit.preflight.plan import Plan, plan


@dataclass(frozen=True)
class Training:
    """One stage of one step."""

    key: str
    """A hash of all that its result depends on."""
    step: str
    """The step that it is part of."""
    recipe: Recipe
    """Its recipe, of one stage, in which parts of earlier trainings stand as `study://KEY/PART`."""
    known: Known = field(compare=False)
    """What it reads that the study does not make."""

    @property
    def stage(self) -> Stage:
        """Its stage."""
        return self.recipe.stages[0]

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return f"{self.recipe.name}-{self.key}"

    @property
    def parents(self) -> set[str]:
        """Keys of the trainings whose parts it reads."""
        read = {*sources_of(self.recipe.model).values(), *self.stage.start_from.values()}
        return {text.removeprefix(SCHEME).partition("/")[0] for text in read if is_ours(text)}


@dataclass(frozen=True)
class PlannedCell:
    """A cell and what it needs."""

    cell: Cell
    """The cell."""
    key: str
    """A hash of all that its numbers depend on."""
    trainings: tuple[str, ...]
    """Keys of its trainings, in order."""
    models: Mapping[str, tuple[ModelConfig, int]]
    """The model after each measured step, and the seed of what was drawn for it."""
    last: Mapping[str, str]
    """Key of each step's last training; steps that are left out have none."""
    measures: Mapping[str, Measure]
    """What is measured, by name."""


@dataclass
class Lineage:
    """The trainings of a study's cells, each once."""

    study: Study
    """The study."""
    runs: Path
    """The folder of run folders and new parts."""
    trainings: dict[str, Training] = field(default_factory=dict)
    """Trainings by key, parents before children."""
    contents: Contents = field(default_factory=Contents)
    """What the study reads and does not make."""
    _plans: dict[str, Plan] = field(default_factory=dict)
    """Plans of recipes, by what these depend on."""
    _new: dict[str, str] = field(default_factory=dict)
    """Folders of new parts by name."""

    def __post_init__(self) -> None:
        """Make the parts that the study begins with."""
        self._new = new_parts(self.study, self.runs / "new")

    def add(self, cell: Cell) -> PlannedCell:
        """What `cell` needs; trainings that are new join the others.

        Raises:
            RecipeError: a level makes a recipe that is not valid.
        """
        chain: list[str] = []
        models: dict[str, tuple[ModelConfig, int]] = {}
        last: dict[str, str] = {}
        for name in self.study.steps:
            made, models[name] = self._step(name, cell, models)
            chain += made
            last.update({name: made[-1]} if made else {})
        measures = self.study.measured(dict(cell.levels))
        asked = {measure.of for measure in measures.values()}
        # Only what is measured is trained: a step that no measure reaches would cost hours for
        # nothing.
        kept = {name: model for name, model in models.items() if name in asked}
        read = {key for model, _ in kept.values() for key in self._ancestors(model)}
        read |= {key for name, key in last.items() if name in kept}
        trainings = tuple(key for key in chain if key in read)
        key = self._cell_key(cell, kept, measures)
        return PlannedCell(cell, key, trainings, kept, last, measures)

    def _step(
        self, name: str, cell: Cell, models: Mapping[str, tuple[ModelConfig, int]]
    ) -> tuple[list[str], tuple[ModelConfig, int]]:
        """Keys of a step's trainings, and the model after it with its seed."""
        step = self.study.steps[name]
        levels = [self.study.factors[f][level].get(name, _SAME) for f, level in cell.levels]
        recipe = self._recipe(name, [each for each in levels if each], models)
        seed = step.seed + (0 if step.shared else cell.seed)
        # Before anything is hashed: cells of different seeds must not share trainings, except where
        # the step says so.
        recipe = recipe.model_copy(update={"seed": seed})
        self._refuse_varying(name, recipe)
        if None in levels:
            return [], (recipe.model, seed)
        made, model = self._stages(name, recipe)
        return made, (model, seed)

    def _refuse_varying(self, name: str, recipe: Recipe) -> None:
        """Refuse a step's recipe that trains otherwise on another machine or another day."""
        if recipe.precision == "auto":
            raise RecipeError(
                f"precision of step {name} is auto, so that machines may differ; put"
                " `precision: fp32` or `precision: bf16` under the study's `set`"
            )
        shaped = with_sources(recipe.model, self._origin)
        if recipe.model.chat_date is None and self.contents.is_dated(shaped):
            raise RecipeError(
                f"the chat template of step {name}'s language writes the date, so that days may"
                f" differ; put a day, `model.chat_date: {shaped.day}`, under the study's `set`"
            )

    def located(self, recipe: Recipe) -> Recipe:
        """`recipe` with the folders of parts in the place of what stands for them."""
        stages = [
            stage.model_copy(
                update={"start_from": {p: self._path(text) for p, text in stage.start_from.items()}}
            )
            for stage in recipe.stages
        ]
        model = self.located_model(recipe.model)
        return recipe.model_copy(update={"model": model, "stages": stages})

    def located_model(self, model: ModelConfig) -> ModelConfig:
        """The same of a recipe's model section."""
        return with_sources(model, self._path)

    def run(self, training: Training) -> RunFolder:
        """The run folder of a training."""
        return RunFolder(self.runs / training.folder)

    def shaped(self, recipe: Recipe) -> Recipe:
        """A recipe of the same shapes that needs no training's result, to plan with."""
        model = with_sources(recipe.model, self._origin)
        # A connector of an earlier training has no folder before that ran; settings give its
        # shapes.
        fresh = model.connector.model_copy(update={"source": None})
        # Rates cost nothing: recipes that differ in them alone share a plan.
        stages = [
            stage.model_copy(
                update={"start_from": {}, "optim": stage.optim.model_copy(update={"lr": 1.0})}
            )
            for stage in recipe.stages
        ]
        model = model.model_copy(update={"connector": fresh})
        return recipe.model_copy(update={"model": model, "stages": stages})

    def plan(self, recipe: Recipe) -> Plan:
        """The plan of a recipe, made once for all of the same shapes and data.

        Raises:
            RecipeError: it has problems, or its FLOPs cannot be counted.
        """
        # Seeds change neither lengths nor memory, so cells that differ in nothing else share a
        # plan.
        shaped = self.shaped(recipe).model_copy(update={"seed": 0})
        key = digest(shaped.model_dump(mode="json", exclude={"name"}))
        if key not in self._plans:
            made = plan(shaped)
            if made.problems or made.flops is None:
                told = "; ".join(made.problems) or "its FLOPs cannot be counted"
                raise RecipeError(f"study {self.study.name}, recipe {recipe.name}: {told}")
            self._plans[key] = made
        return self._plans[key]

    def flops(self, recipe: Recipe) -> float:
        """FLOPs that a recipe trains for."""
        return self.plan(recipe).flops or 0.0

    def sizes(self, recipe: Recipe) -> dict[str, int]:
        """Records of every source of a recipe."""
        return {name: self.contents.source(name, each)[1] for name, each in recipe.sources.items()}

    def _recipe(
        self, name: str, levels: list[StepChange], models: Mapping[str, tuple[ModelConfig, int]]
    ) -> Recipe:
        """The recipe of a step at some levels."""
        step, recipe = self.study.steps[name], None
        common = step.model_copy(update={"set": {**self.study.set, **step.set}})
        for change in [common, *levels]:
            settings = {path: self._resolved(value, models) for path, value in change.set.items()}
            recipe = changed(recipe, change, settings, sizes=self.sizes, flops=self.flops)
        assert recipe is not None
        return recipe

    def _resolved(self, value: Any, models: Mapping[str, tuple[ModelConfig, int]]) -> Any:
        """A setting's value, where `$STEP/PART` is what the step made of the part, or was given."""
        if not (isinstance(value, str) and value.startswith(REFERENCE)):
            return value
        owner, _, part = value.removeprefix(REFERENCE).partition("/")
        if owner in models:
            return {str(p): text for p, text in sources_of(models[owner][0]).items()}.get(part)
        return SCHEME + self._new[part]

    def _stages(self, step: str, recipe: Recipe) -> tuple[list[str], ModelConfig]:
        """Keys of the step's trainings, and the model section of what they make."""
        keys: list[str] = []
        now: dict[Part, str] = {}
        for stage in recipe.stages:
            # As in one run: a part goes on with what the stage before made, unless told otherwise.
            start = {**now, **{p: s for p, s in stage.start_from.items() if s != "previous"}}
            begun = {part: text for part, text in start.items() if text != "recipe"}
            alone = stage.model_copy(update={"start_from": begun, "save": PARTS})
            used = {*stage.data, recipe.monitoring.source}
            update = {
                "name": f"{step}-{stage.name}",
                "stages": [alone],
                "sources": {n: each for n, each in recipe.sources.items() if n in used},
            }
            training = self._training(step, recipe.model_copy(update=update))
            keys.append(training.key)
            made = {part for part in PARTS if stage.share(part) > 0}
            # A fresh connector is drawn by this training even where it does not learn, so it is
            # what comes next.
            if "connector" not in begun and recipe.model.connector.source is None:
                made.add("connector")
            now = {**begun, **{part: f"{SCHEME}{training.key}/{part}" for part in made}}
        return keys, with_sources(recipe.model, lambda text: text, now)

    def _training(self, step: str, recipe: Recipe) -> Training:
        # Whole sections alone: a section with one free setting holds others that count.
        free = {each.removesuffix(".*") for each in FREE if "." not in each.removesuffix(".*")}
        document = recipe.model_dump(mode="json", exclude=free)
        document["stages"][0]["start_from"] = {}
        # By fingerprints, as files may change under the same settings.
        begun, held = recipe.stages[0].start_from, self.contents.checkpoint
        read = {name: recipe.sources[name] for name in recipe.stages[0].data}
        began = {**sources_of(recipe.model), **begun}
        known = self.contents.known(read, began.values())
        document["sources"] = {name: found for name, (_, found) in known.sources.items()}
        document["model"] = with_sources(recipe.model, held).model_dump(mode="json")
        document["start_from"] = {part: held(text) for part, text in begun.items()}
        key = digest(document)
        return self.trainings.setdefault(key, Training(key, step, recipe, known))

    def _cell_key(
        self,
        cell: Cell,
        models: Mapping[str, tuple[ModelConfig, int]],
        measures: Mapping[str, Measure],
    ) -> str:
        """A hash of all that a cell's numbers depend on, and of no place where it lies."""
        told = {
            name: [with_sources(model, self.contents.checkpoint).model_dump(mode="json"), seed]
            for name, (model, seed) in models.items()
        }
        wanted = {n: each.model_dump(mode="json", exclude={"over"}) for n, each in measures.items()}
        for name, measure in measures.items():
            # The names alone: a data set may be too large to read for a hash.
            wanted[name]["data"] = [Path(each).name for each in measure.data]
            if measure.source is not None:
                wanted[name]["source"] = self.contents.source(name, measure.source)[0]
        return digest([told, wanted, cell.seed])

    def _path(self, text: str) -> str:
        """The folder that a text stands for; any other text as it is."""
        if not is_ours(text):
            return text
        owner, _, part = text.removeprefix(SCHEME).partition("/")
        if owner == "new":
            return str(self.runs / "new" / part)
        training = self.trainings[owner]
        return str(self.run(training).stage(0, training.stage.name) / part)

    def _origin(self, text: str) -> str:
        """The folder or hub id that a part's training began with."""
        while is_ours(text):
            owner, _, part = text.removeprefix(SCHEME).partition("/")
            if owner == "new":
                return self._path(text)
            began = sources_of(self.trainings[owner].recipe.model)
            text = next((of for name, of in began.items() if name == part), "")
        return text

    def _ancestors(self, model: ModelConfig) -> set[str]:
        """Keys of all trainings that a model goes back to."""
        waiting = [text for text in sources_of(model).values() if is_ours(text)]
        found: set[str] = set()
        while waiting:
            key = waiting.pop().removeprefix(SCHEME).partition("/")[0]
            if key in self.trainings and key not in found:
                found.add(key)
                waiting += [f"{SCHEME}{parent}/" for parent in self.trainings[key].parents]
        return found


_SAME = StepChange()
"""No change."""

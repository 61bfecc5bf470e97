"""`sailvit.load_run`: the model of a run, ready for questions. Every command loads it here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sailvit.core.errors import DataError, RunError
from sailvit.core.recipe import PARTS, Recipe
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.core.run import RunFolder
from sailvit.data.processing.given import as_image
from sailvit.data.processing.processor import Processor
from sailvit.evaluation.answers import answer
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.loading.quiet import quietly
from sailvit.models.structure.connector import Connector
from sailvit.models.towers.tower import Tower
from sailvit.recipes.loader import load_recipe
from sailvit.training.output.manifest import run_day

Images = Any
"""The images of one question: None, an image, or a list of images. An image is a path, encoded
bytes, a PIL image, or an array or tensor of pixels."""


@dataclass(frozen=True)
class StageFolder:
    """A stage of a run on the disk."""

    run: RunFolder
    """The run."""
    recipe: Recipe
    """What the run was trained with."""
    index: int
    """The stage's place among the recipe's stages."""

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.recipe.stages[self.index].name

    @property
    def parts(self) -> Path:
        """The folder of the stage's saved parts."""
        return self.run.stage(self.index, self.name)


def find_stage(path: str | Path, stage: str | None = None) -> StageFolder:
    """The stage at `path`, which is a run folder or the folder of one of its stages.

    In a run folder `stage` names it; None: the last stage.

    Raises:
        RunError: there is no run at `path`, or it has no such stage.
    """
    given = Path(path)
    run = RunFolder(given)
    if not run.recipe.is_file() and given.parent.name == "stages":
        run, stage = RunFolder(given.parent.parent), given.name.partition("-")[2]
    if not run.recipe.is_file():
        raise RunError(
            f"{path} has no recipe.yaml; expected the folder of a run, as `sailvit train` writes it"
        )
    recipe = load_recipe(run.recipe)
    names = [made.name for made in recipe.stages]
    if stage is not None and stage not in names:
        raise RunError(f"{path} has no stage {stage!r}; it has {', '.join(names)}")
    return StageFolder(run, recipe, len(names) - 1 if stage is None else names.index(stage))


def load_bundle(
    found: StageFolder,
    *,
    device: torch.device | str | None = None,
    trust_remote_code: bool | None = None,
) -> ModelBundle:
    """The model that a stage saved, with the date of its run, so that dated chat templates give
    the prompts of training.

    `device` None: the first GPU, else the CPU. `trust_remote_code` None: what the run's recipe
    says.

    Raises:
        RunError: the stage did not end, or did not save all parts.
    """
    parts = found.parts
    if missing := [part for part in PARTS if not (parts / part).is_dir()]:
        raise RunError(
            f"{parts} has no {' and no '.join(missing)}; expected a stage that ended and saved"
            " all parts"
        )
    recipe = found.recipe
    update = {
        "tower": str(parts / "tower"),
        "language": str(parts / "language"),
        "connector": recipe.model.connector.model_copy(update={"source": str(parts / "connector")}),
        "chat_date": run_day(found.run, recipe),
        # The recipe's revisions belong to hub ids; these are folders.
        "revision": {},
    }
    if trust_remote_code is not None:
        update["trust_remote_code"] = trust_remote_code
    with quietly():
        bundle = build(recipe.model.model_copy(update=update), recipe.seed)
    bundle.mllm.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return bundle


class RunModel:
    """The model of a run, which answers questions about images."""

    def __init__(self, bundle: ModelBundle) -> None:
        self.bundle = bundle
        self.processor = Processor(bundle.tokenizer, bundle.layout, longest=1 << 30, day=bundle.day)
        """Makes prompts from records, token for token those of training."""

    @property
    def tower(self) -> Tower:
        """The vision tower: tiles uint8[I, 3, H, W] to features float[I, P, D]."""
        return self.bundle.mllm.tower

    @property
    def connector(self) -> Connector:
        """The connector: features float[I, P, D] to visual tokens float[I, V, D]."""
        return self.bundle.mllm.connector

    @property
    def language(self) -> nn.Module:
        """The language model, as transformers loaded it."""
        language: nn.Module = self.bundle.mllm.language
        return language

    def generate(
        self,
        images: Images,
        text: str | Sequence[str],
        *,
        system: str | None = None,
        longest: int = 256,
        batch: int = 16,
    ) -> Any:
        """The greedy answer to a question about images; a list of questions gives a list of
        answers.

        `<image>` marks in a text say where its images go; without marks they stand before the
        text, a line each.

        Args:
            images: None, an image, or a list of images; for a list of questions, a list with
                one such entry per question.
            text: the question, or a list of questions.
            system: text of the system turn; None: no system turn.
            longest: most tokens of an answer.
            batch: most questions that are answered at the same time.

        Raises:
            DataError: images and marks differ in number, or an image cannot be read.
        """
        if isinstance(text, str):
            return answer(self.bundle, [question(images, text, system)], longest=longest)[0]
        shown = [None] * len(text) if images is None else list(images)
        if len(shown) != len(text):
            raise DataError(
                f"{len(shown)} images for {len(text)} questions; expected one entry for each"
                " question: None, an image or a list of images"
            )
        records = [question(*pair, system) for pair in zip(shown, text, strict=True)]
        return answer(self.bundle, records, longest=longest, batch=batch)


def question(images: Images, text: str, system: str | None = None) -> Record:
    """The record from which the prompt of a question about images is made."""
    given = list(images) if isinstance(images, list | tuple) else [images]
    pictures = tuple(as_image(image) for image in given if image is not None)
    if IMAGE_MARK not in text:
        text = f"{IMAGE_MARK}\n" * len(pictures) + text
    before = () if system is None else (Turn("system", system),)
    return Record("question", (*before, Turn("user", text)), pictures)


def load_run(
    path: str | Path,
    stage: str | None = None,
    *,
    device: torch.device | str | None = None,
    trust_remote_code: bool = False,
) -> RunModel:
    """The model that a run saved, ready for questions.

    No module that the run's recipe names is imported, and no code of a model's repository runs
    unless `trust_remote_code` says so.

    Args:
        path: a run folder, or a stage's folder such as `runs/mine/stages/01-fine`.
        stage: name of the stage; None: the last.
        device: the model's device; None: the first GPU, else the CPU.
        trust_remote_code: whether parts may run Python code that lies beside their weights.

    Raises:
        RunError: there is no run at `path`, or the stage did not save all parts.
        ModelError: a part cannot be loaded.
    """
    found = find_stage(path, stage)
    return RunModel(load_bundle(found, device=device, trust_remote_code=trust_remote_code))

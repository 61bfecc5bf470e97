"""Training a recipe's stages, anew or from where they stopped, for command line and Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sailvit.api.continuing import (
    default_folder,
    recipe_going_on,
    refuse_own_parents,
    wish_of,
)
from sailvit.api.screen import Screen
from sailvit.core.atomic import whole_file
from sailvit.core.errors import RunError
from sailvit.core.ownership import is_run, manifest_of
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder, read_lines
from sailvit.distributed.processes import as_one, process_group, rank
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.quiet import quietly
from sailvit.recipes.loader import dump_recipe, load_recipe
from sailvit.recipes.python import made_recipe
from sailvit.report.page import write_report
from sailvit.training.callbacks.claim import Claim, claimed
from sailvit.training.stages.callback import Callback
from sailvit.training.trainer import Trainer

if TYPE_CHECKING:
    from sailvit.inference.model import RunModel


@dataclass(frozen=True)
class Run:
    """A run on disk."""

    folder: Path
    """The run folder."""
    trained: bool = True
    """Whether the call that returned this trained; False: the run was complete already."""

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(RunFolder(self.folder).recipe)

    @property
    def stages(self) -> dict[str, Path]:
        """The folder of every ended stage's saved parts, by the stage's name."""
        ended = manifest_of(self.folder).get("stages", ())
        home = RunFolder(self.folder)
        return {stage["name"]: home.stage(stage["index"], stage["name"]) for stage in ended}

    @property
    def report(self) -> Path:
        """The page about the run, `report.html`."""
        return RunFolder(self.folder).report

    def metrics(self) -> list[dict[str, Any]]:
        """What every optimizer step did: loss, lr, tokens, speed; one mapping per step."""
        return list(read_lines(RunFolder(self.folder).metrics))

    def proofs(self) -> list[dict[str, Any]]:
        """The proofs of training: what was planned to move, and what moved."""
        return list(read_lines(RunFolder(self.folder).proofs))

    def load(self, stage: str | None = None) -> RunModel:
        """The model as it was after a stage; None: after the last."""
        from sailvit.api.models import load_run

        return load_run(self.folder, stage)


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    run: str | Path | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    screen: Screen | None = None,
) -> Run:
    """Train a recipe's stages and save every part as a Hugging Face folder.

    `sailvit.train` says what the arguments are; `screen` shows the progress, None shows nothing.
    """
    made = made_recipe(recipe, overrides)
    folder = RunFolder(Path(run or default_folder(recipe, made, resume=resume)))
    with process_group():
        if resume and not is_run(folder.path):
            raise RunError(f"{folder.path} holds no run to resume; start it without --resume")
        shown = Screen() if screen is None or rank() != 0 else screen
        wish = wish_of(made, resume=resume, overwrite=overwrite)
        with claimed(folder, wish, len(made.stages)) as claim:
            if claim.deed == "nothing":
                shown.say(f"{folder.path} is finished; nothing is left to do")
                return Run(folder.path, trained=False)
            train_claimed(made, folder, claim, shown, callbacks)
    return Run(folder.path)


def train_new(recipe: Recipe, folder: RunFolder, screen: Screen) -> ModelBundle:
    """Start a new run in `folder`; returns the trained model."""
    with claimed(folder, "start", len(recipe.stages)) as claim:
        return train_claimed(recipe, folder, claim, screen)


def train_claimed(
    recipe: Recipe,
    folder: RunFolder,
    claim: Claim,
    screen: Screen,
    callbacks: Sequence[Callback] = (),
) -> ModelBundle:
    """Start, resume or replace the run, as `claim` decided, and write its report; returns the
    trained model.
    """
    resume = claim.deed == "resume"
    notes = list(claim.notes)
    if resume:
        recipe, edited = recipe_going_on(folder, recipe)
        notes += edited
    for note in notes:
        screen.announce({"note": note})
    if claim.deed == "overwrite":
        refuse_own_parents(recipe, folder)
    # Before anything is built, so that the new run reads nothing of the old one; `claim` puts
    # the old one back on failure.
    claim.begin()
    # Every step seeds torch's global generators, from which dropout draws; the caller's states
    # come back afterwards.
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with quietly(), torch.random.fork_rng(devices=devices):
        screen.open_run(recipe, folder.path)
        with screen.measuring() as measured:
            trainer = Trainer(
                recipe,
                folder,
                callbacks=[*screen.callbacks(), *callbacks],
                announce=screen.announce,
                progress=measured,
            )
        with as_one():
            if rank() == 0:
                _write_recipe(folder, dump_recipe(trainer.recipe))
        bundle = trainer.run(resume=resume, claim=claim)
        if rank() == 0:
            write_report(folder)
    return bundle


def _write_recipe(folder: RunFolder, text: str) -> None:
    try:
        with whole_file(folder.recipe) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"{folder.path} cannot be written ({error.strerror}); free some space or change its"
            " mode, or choose another folder with --run"
        ) from error

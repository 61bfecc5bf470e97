"""Loggers: where a run's numbers go beside its own files (TensorBoard, wandb, trackio)."""

from __future__ import annotations

import hashlib
import importlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from sailvit.core.disk import explained, reason
from sailvit.core.errors import RecipeError, RunError
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder, read_json
from sailvit.training.stages.stage_run import StageRun

PROJECT = "sailvit"
"""Project under which wandb and trackio show runs, unless their own settings say otherwise."""

_FAILURES = (OSError, RuntimeError, ValueError, sqlite3.Error)
"""What tools raise when a disk is full or a server is gone."""


class Logger(Protocol):
    """One tool that keeps numbers and draws their curves."""

    def add(self, values: Mapping[str, float], *, samples: int, step: int) -> None:
        """Take the values after so many samples of the stage and steps of the run."""

    def close(self) -> None:
        """Write what is left."""


class Loggers:
    """All loggers that a run's recipe names; they are opened with the first values.

    A logger that fails later (its disk is full, its server gone) is left out until the next
    stage: the run's own files hold all its numbers.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        announce: Callable[[dict[str, Any]], None] = lambda line: None,
    ) -> None:
        """`announce` is told when a tool is left out."""
        self._recipe = recipe
        self._folder = folder
        self._announce = announce
        self._loggers: dict[str, Logger] | None = None
        self._before: dict[int, int] = {}

    def open(self) -> None:
        """Open the tools now, so that a tool that cannot start says so before the first step."""
        if self._loggers is None:
            with explained("what monitoring.loggers asks for", "start again"):
                self._loggers = {
                    tool: LOGGERS[tool](self._recipe, self._folder)
                    for tool in self._recipe.monitoring.loggers
                }
            return
        for tool in self._recipe.monitoring.loggers:
            if tool not in self._loggers:
                with self._left_out(tool):
                    self._loggers[tool] = LOGGERS[tool](self._recipe, self._folder)

    def add(self, run: StageRun, values: Mapping[str, float]) -> None:
        """Log `values` for the run's last step, under the name of its stage."""
        if self._loggers is None:
            self.open()
        named = {f"{run.stage.name}/{name}": value for name, value in values.items()}
        step = self._steps_before(run.index) + run.step
        for tool, logger in list((self._loggers or {}).items()):
            with self._left_out(tool):
                logger.add(named, samples=run.samples, step=step)

    def close(self) -> None:
        """Close every logger."""
        for tool, logger in list((self._loggers or {}).items()):
            with self._left_out(tool):
                logger.close()
        self._loggers = None

    @contextmanager
    def _left_out(self, tool: str) -> Iterator[None]:
        """A context in which a tool that fails is left out, which is announced."""
        try:
            yield
        except _FAILURES as error:
            (self._loggers or {}).pop(tool, None)
            self._announce(
                {
                    "note": f"{tool} failed ({reason(error)}) and is left out until the next stage; {self._folder.path}"
                    " has the numbers"
                }
            )

    def _steps_before(self, index: int) -> int:
        """Steps of the stages before this one."""
        if index not in self._before:
            known = (
                read_json(self._folder.manifest)["stages"] if self._folder.manifest.exists() else []
            )
            self._before[index] = sum(stage["steps"] for stage in known if stage["index"] < index)
        return self._before[index]


class _TensorBoard:
    """Event files in the run folder, over samples of the stage."""

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        del recipe
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder.tensorboard))

    def add(self, values: Mapping[str, float], *, samples: int, step: int) -> None:
        """A scalar each."""
        del step
        for name, value in values.items():
            self._writer.add_scalar(name, value, samples)

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class _Logged:
    """What wandb and trackio have in common: a run object that logs dictionaries, over steps of
    the run.
    """

    _run: Any

    def add(self, values: Mapping[str, float], *, samples: int, step: int) -> None:
        """One line."""
        # wandb ignores a step below its last one, and samples begin at 0 in every stage.
        del samples
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish, which may upload."""
        self._run.finish()


class _Wandb(_Logged):
    """Weights & Biases; WANDB_MODE=offline keeps everything in the run folder."""

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        wandb = importlib.import_module("wandb")
        try:
            self._run = wandb.init(
                project=PROJECT,
                name=folder.path.name,
                id=_identity(folder),
                resume="allow",
                dir=str(folder.path),
                config=recipe.model_dump(mode="json"),
                # wandb would take over the terminal's output, where live lines are drawn.
                settings={"console": "off"},
            )
        except wandb.errors.Error as error:
            raise RunError(
                f"wandb did not start ({error}); log in with `wandb login`, set WANDB_MODE=offline to keep its files in"
                f" {folder.path}, or take it out of monitoring.loggers"
            ) from error


class _Trackio(_Logged):
    """Trackio, in files of its own on this machine (TRACKIO_DIR) unless its settings name a
    Space.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        trackio = importlib.import_module("trackio")
        # Trackio resumes by name, and folders of different machines may share theirs.
        name = f"{folder.path.name}-{_identity(folder)[:6]}"
        config = recipe.model_dump(mode="json")
        self._run = trackio.init(
            project=PROJECT, name=name, config=config, resume="allow", embed=False
        )


LOGGERS: dict[str, Any] = {"tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio}
"""By the name that recipes use."""


def refuse_missing(recipe: Recipe) -> None:
    """RecipeError when the recipe names a tool that is not installed."""
    for tool in recipe.monitoring.loggers:
        if find_spec(tool) is None:
            raise RecipeError(
                f"monitoring.loggers names {tool}, which is not installed; install it"
                f" with `pip install 'sailvit[{tool}]'`, or take it out"
            )


def _identity(folder: RunFolder) -> str:
    """An id of the run: resumed, it has the same, and no other run has it."""
    began = read_json(folder.manifest)["created"] if folder.manifest.exists() else ""
    return hashlib.blake2b(f"{folder.path.resolve()} {began}".encode(), digest_size=6).hexdigest()

"""Trainings in a process of their own, one after the other, while another goes on here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sailvit.core.errors import RunError
from sailvit.core.run import RunFolder

_CHILD = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1));"
    " runpy.run_module('sailvit', run_name='__main__', alter_sys=True)"
)
"""Run with `-I`, so that no file in the current folder is imported as a library, which `-m` alone
would do; `sys.path` is that of this process."""


@dataclass(frozen=True)
class Beside:
    """A training that runs beside."""

    what: str
    """What it is, for messages."""
    recipe: str
    """Name or file of its recipe."""
    settings: Sequence[str]
    """Overrides as `sailvit train` takes them."""
    folder: RunFolder
    """Its run folder."""

    @property
    def log(self) -> Path:
        """The file with the process's output, beside its run folder."""
        return self.folder.path.with_suffix(".log")

    def command(self) -> list[str]:
        """The command that does it."""
        chosen = [word for setting in self.settings for word in ("--set", setting)]
        told = ["train", self.recipe, "--run", str(self.folder.path)]
        return [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path), *told, *chosen]


class TrainingsBeside:
    """Runs trainings in their order, each in a process with `threads` threads."""

    def __init__(self, trainings: Sequence[Beside], threads: int) -> None:
        self._trainings = trainings
        self._threads = threads
        self._pool = ThreadPoolExecutor(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._done: Future[None] | None = None

    def __enter__(self) -> TrainingsBeside:
        """Start the first; a thread of this process starts the others."""
        self._done = self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""
        # Also after an error or Ctrl-C here: it must not train on by itself.
        self._stopped = True
        if self._process is not None:
            self._process.terminate()
        self._pool.shutdown()

    def check(self) -> None:
        """RunError where one has failed already."""
        if self._done is not None and self._done.done():
            self._done.result()

    def wait(self) -> None:
        """Wait for the end of all; RunError where one failed."""
        assert self._done is not None
        self._done.result()

    def _run(self) -> None:
        for each in self._trainings:
            each.log.parent.mkdir(parents=True, exist_ok=True)
            with each.log.open("w", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    each.command(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
                )
            if self._stopped:
                # The end came while the process was being started, and missed it.
                self._process.terminate()
            if self._process.wait() != 0:
                raise RunError(f"{each.what} failed; {each.log} says why")

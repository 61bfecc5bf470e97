"""A run's claim on its folder: one run writes there at a time, and the run that it replaces is
kept until the new one has taken a step.

A run that is replaced is moved into `.previous` inside the folder, so that links to the folder,
mount points and current directories stay valid. It is removed after the new run's first step.
If the new run ends before that, the old one is put back: at once or, after a kill, at the next
start in the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from sailvit.checkpoint.store import has_checkpoint
from sailvit.core.disk import explained
from sailvit.core.errors import RunError
from sailvit.core.lock import RunLock, living_holder
from sailvit.core.ownership import (
    ASIDE,
    DOOMED,
    LOCK,
    MOVING,
    is_run,
    manifest_of,
    others,
    own_entries,
    remove_own,
    strangers,
)
from sailvit.core.run import RunFolder
from sailvit.distributed.processes import as_one, broadcast, rank
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord

Wish = Literal["start", "overwrite", "resume", "auto"]
"""What the user wants; `auto` resumes a run that has a checkpoint and restarts one that has
none."""
Deed = Literal["start", "overwrite", "resume", "nothing"]
"""What will be done; `nothing` where the run is complete."""

Result = TypeVar("Result")

_SHOWN = 5
"""Most names in a message."""


class Claim:
    """One run's claim on its folder. With several processes all of them make every call, and
    the first one acts.
    """

    def __init__(self, folder: RunFolder, wish: Wish, stages: int) -> None:
        self.deed: Deed = "nothing"
        self.notes: list[str] = []
        self._given = folder.path
        # The folder may be a symbolic link, which must stay one.
        self._path = Path(os.path.realpath(folder.path))
        self._lock = RunLock(self._path / LOCK)
        self._wish = wish
        self._stages = stages
        self._begun = False

    def take(self) -> None:
        """Lock the folder, repair what a killed start has left, and decide what will be done.

        Raises:
            RunError: another process writes there, or the folder holds something that must not
                be touched.
        """
        self.deed, self.notes = _first_acts(self._take)

    def begin(self) -> None:
        """Set the old run aside, if one is replaced; from here on the new run writes."""
        if not self._begun:
            self._begun = True
            _first_acts(self._set_aside)

    def settle(self) -> None:
        """Remove the run that was set aside; the new one has begun."""
        aside = self._path / ASIDE
        # Renamed first: a removal that is killed half-way must not be taken for a whole run.
        if self._begun and rank() == 0 and aside.is_dir():
            _remove(aside.rename(self._path / DOOMED))

    def check(self) -> None:
        """RunError when another process has taken the folder over."""
        if rank() == 0:
            self._lock.check()

    def close(self, *, failed: bool) -> None:
        """Put back what was set aside, if the new run has not begun, and release the folder."""
        if rank() != 0:
            return
        try:
            if not failed:
                self.settle()
            elif self._begun and self.deed != "resume":
                self._undo()
        finally:
            self._lock.release()

    def _take(self) -> tuple[Deed, list[str]]:
        self._refuse_other_things()
        was_left = self._lock.acquire()
        try:
            self._refuse_busy_inside()
            notes = self._recover()
            return self._settled(was_left=was_left), notes
        except RunError:
            self._lock.release()
            raise
        except OSError as error:
            self._lock.release()
            raise RunError(f"{self._given} cannot be used ({error})") from error

    def _refuse_other_things(self) -> None:
        """RunError, before anything is written, for a file, or a folder that is neither empty
        nor a run's.
        """
        if self._path.exists() and not self._path.is_dir():
            raise RunError(f"{self._given} is a file; give a folder with --run")
        if not self._path.is_dir():
            return
        known = (LOCK, ASIDE, MOVING)
        if is_run(self._path) or any((self._path / name).exists() for name in known):
            return
        if found := others(self._path):
            raise RunError(self._told(found))

    def _refuse_busy_inside(self) -> None:
        """RunError when a run that the demo keeps inside its own is still being written: its
        process can outlive the demo's.
        """
        for lock in self._path.glob(f"target/*/{LOCK}"):
            if (holder := living_holder(lock)) is not None:
                raise RunError(f"{lock.parent} is being written by {holder}; stop it first")

    def _settled(self, *, was_left: bool) -> Deed:
        if self._wish == "resume":
            over = self._complete() and not has_checkpoint(RunFolder(self._path).state)
            return "nothing" if over else "resume"
        if not is_run(self._path):
            self._refuse_remains(was_left=was_left)
            return "start"
        deed: Deed = "overwrite"
        if self._wish == "auto":
            if self._complete():
                return "nothing"
            if has_checkpoint(RunFolder(self._path).state):
                return "resume"
        elif self._wish == "start":
            raise RunError(self._told_of_run())
        if found := strangers(self._path):
            raise RunError(
                f"{self._given} holds a run and {_names(found)}, which sailvit did not write:"
                " nothing was replaced; move that elsewhere, or give another folder with --run"
            )
        return deed

    def _told_of_run(self) -> str:
        """Why a new run does not start where one is, and what to do."""
        ways = "replace it with --overwrite, or give another folder with --run"
        if self._complete():
            return f"{self._given} already holds a finished run; {ways}"
        return f"{self._given} already holds a run; continue it with --resume, {ways}"

    def _complete(self) -> bool:
        """Whether the run there has exported as many stages as this one has."""
        return len(manifest_of(self._path).get("stages", ())) == self._stages

    def _refuse_remains(self, *, was_left: bool) -> None:
        """Remove the files of a start that was killed before its manifest was written; RunError
        for any others.
        """
        found = [name for name in others(self._path) if not name.startswith(LOCK)]
        if found and (not was_left or strangers(self._path)):
            raise RunError(self._told(found))
        if found:
            remove_own(self._path)

    def _told(self, found: list[str]) -> str:
        if self._wish == "resume":
            return (
                f"{self._given} holds {_names(found)} but no run to resume; give the run's folder"
                " with --run"
            )
        return (
            f"{self._given} holds {_names(found)} and is no run of sailvit's, so nothing is written"
            " there; give an empty or a new folder with --run"
        )

    def _recover(self) -> list[str]:
        """Finish what a killed process was doing with the run that it was to replace."""
        if (doomed := self._path / DOOMED).is_dir():
            _remove(doomed)
        if not (is_run(self._path / ASIDE) or (self._path / MOVING).is_dir()):
            return []
        self._put_back()
        return [f"a start in {self._given} was killed before its first step; the old run is back"]

    def _set_aside(self) -> None:
        if self.deed != "overwrite":
            return
        # Under another name until all is moved, so that a kill in between leaves no half of a
        # run under the name of a whole one.
        moving = self._path / MOVING
        try:
            moving.mkdir()
            for entry in own_entries(self._path):
                entry.rename(moving / entry.name)
            moving.rename(self._path / ASIDE)
        except OSError as error:
            self._put_back()
            raise RunError(
                f"the run in {self._given} cannot be set aside ({error.strerror}:"
                f" {error.filename}); it is as it was: give another folder with --run"
            ) from error

    def _undo(self) -> None:
        """After a start that failed before its first step: put back the old run; without one,
        remove what has no manifest yet.
        """
        if (self._path / ASIDE).is_dir():
            self._put_back()
        elif not is_run(self._path):
            remove_own(self._path)

    def _put_back(self) -> None:
        aside, moving = self._path / ASIDE, self._path / MOVING
        if aside.is_dir():
            # The new run's files go first; killed in here, the next start does it again.
            remove_own(self._path)
            aside.rename(moving)
        if moving.is_dir():
            for entry in list(moving.iterdir()):
                if not (self._path / entry.name).exists():
                    entry.rename(self._path / entry.name)
            moving.rmdir()


class KeepClaim(Callback):
    """Removes the old run after the new one's first step, and stops a run whose folder another
    process has taken over.
    """

    def __init__(self, claim: Claim) -> None:
        self._claim = claim

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Check before this step is written anywhere."""
        del record
        with as_one(), explained(str(run.folder.path)):
            self._claim.check()
            self._claim.settle()


@contextmanager
def claimed(folder: RunFolder, wish: Wish, stages: int) -> Iterator[Claim]:
    """A context with the folder locked for a run of so many stages; at its end the folder is
    released, and the replaced run is removed or put back.

    Raises:
        RunError: another process writes there, or the folder holds something that must not be
            touched.
    """
    claim = Claim(folder, wish, stages)
    claim.take()
    failed = True
    try:
        yield claim
        failed = False
    finally:
        claim.close(failed=failed)


def _first_acts(act: Callable[[], Result]) -> Result:
    """The first process's result of `act`, or its RunError, on all processes."""
    outcome: tuple[Result | None, str | None] = (None, None)
    if rank() == 0:
        try:
            outcome = act(), None
        except RunError as error:
            # Raised only after the broadcast, in which the others wait.
            outcome = None, str(error)
    value, problem = broadcast(outcome)
    if problem is not None:
        raise RunError(problem)
    given: Result = value
    return given


def _remove(doomed: Path) -> None:
    remove_own(doomed)
    if not any(doomed.iterdir()):
        doomed.rmdir()


def _names(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more

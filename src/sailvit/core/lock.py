"""The lock on a run folder: a file that names the process that writes there and its host, and
whose modification time is that process's heartbeat.

`flock` is not relied on, as some shared file systems apply it on one machine only. The file
appears whole by a hard link, which NFS makes in one step. A process that was killed leaves its
lock behind: on the same machine the process is looked up, from another machine its heartbeat is
watched for a while.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from sailvit.core.errors import RunError, TakenOverError

HEARTBEAT = 10.0
"""Seconds between two beats."""
# Three beats and some delay of a busy file server: one late beat must not cost a run its lock.
PATIENCE = 35.0
"""Seconds without a beat after which a process of another machine is taken for dead."""
_POLL = 0.5
_TRIES = 100
"""More takeovers than this within one start mean that something else is wrong."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    host: str
    """Its name for people."""
    machine: str
    """The booted machine and its process numbers: only there a process can be looked up."""
    pid: int
    """Number of the process."""
    began: str
    """When that process began, as the kernel says; numbers are used again."""
    since: str
    """When it took the lock, in UTC."""
    command: str
    """What it runs."""
    token: str
    """Tells this lock from every other one."""

    def __str__(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.host} (since {self.since}: {self.command})"


class RunLock:
    """One folder's lock, once `acquire` has returned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._me = _this_process()
        self._made: list[Path] = []
        self._stop = threading.Event()
        self._lost = False

    def acquire(self) -> bool:
        """Take the lock; the result says whether it was one that a dead process had left.

        Raises:
            RunError: a living process holds it, or the folder cannot be written.
        """
        try:
            self._make_folder()
            took_over = _take(self.path, self._me)
        except OSError as error:
            self._remove_folder()
            raise RunError(
                f"{self.path.parent} cannot be written ({error.strerror}); make room or change its"
                " mode, or choose another folder with --run"
            ) from error
        except RunError:
            self._remove_folder()
            raise
        # A daemon: a run that crashes must not live on, and beat on, in this thread.
        threading.Thread(target=self._beat, name="run-lock", daemon=True).start()
        return took_over

    def check(self) -> None:
        """RunError when another process has taken the lock, because this one's heartbeat had
        stopped.
        """
        if self._lost:
            raise TakenOverError(
                f"{self.path.parent} was taken over by {_read(self.path) or 'another process'}, as"
                " this process's heartbeat had stopped; this one ends, so that only one process"
                " writes the run"
            )

    def release(self) -> None:
        """Give the lock back; a folder that was made for it and is empty goes too."""
        self._stop.set()
        holder = _read(self.path)
        if holder is not None and holder.token == self._me.token:
            self.path.unlink(missing_ok=True)
        self._remove_folder()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            holder = _read(self.path)
            if holder is None or holder.token != self._me.token:
                # While this thread waited, `release` may have removed the file.
                self._lost = not self._stop.is_set()
                return
            try:
                os.utime(self.path)
            except OSError:
                # A file server that is away for a moment; the next beat tries again.
                continue

    def _make_folder(self) -> None:
        folder = self.path.parent
        self._made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)

    def _remove_folder(self) -> None:
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                return


def living_holder(path: Path) -> Holder | None:
    """The living process that holds the lock at `path`; None when there is none.

    Nothing is waited for: a holder on another machine counts as living.
    """
    holder = _read(path)
    return None if holder is None or _dead(holder) else holder


def is_held(path: Path) -> bool | None:
    """Whether the process that holds the lock at `path` lives; None when nobody holds it.

    The answer comes at once: a process of another machine is judged by the age of its last
    beat. Clocks of two machines may differ, so that age may be three times `PATIENCE`, which is
    the limit for a process that wants the lock and has time to watch the beats.
    """
    holder = _read(path)
    if holder is None:
        return None
    if holder.machine == _machine():
        return not _dead(holder)
    beat = _time_of(path)
    return None if beat is None else time.time() - beat / 1e9 < 3 * PATIENCE


def _take(path: Path, me: Holder) -> bool:
    """Make `path` name `me`; the result says whether a dead process's lock was replaced.
    RunError when a living one holds it.
    """
    for attempt in range(_TRIES):
        if _appear(path, me):
            return attempt > 0
        holder = _read(path)
        if not _is_stale(path, holder):
            raise RunError(
                f"{path.parent} is being written by {holder or 'another process'}; wait for it, or"
                " stop it first: two at once would spoil the run"
            )
        _replace(path, holder, me)
        found = _read(path)
        if found is not None and found.token == me.token:
            return True
    raise RunError(f"{path} changes hands again and again; see which processes use {path.parent}")


def _replace(path: Path, stale: Holder | None, me: Holder) -> None:
    """Put `me` in the place of a dead holder, unless another process has done so first.

    Whoever gets the guard, a lock named after the dead one's token, may replace it; of two that
    found the same dead holder the second sees that it is gone.
    """
    guard = path.with_name(f"{path.name}.{stale.token if stale else 'unreadable'}")
    _take(guard, me)
    try:
        if _read(path) == stale:
            draft = _written(path, me)
            draft.replace(path)
    finally:
        guard.unlink(missing_ok=True)


def _appear(path: Path, me: Holder) -> bool:
    """Whether `path` was created, with all its content, where there was no file."""
    draft = _written(path, me)
    try:
        os.link(draft, path)
    except FileExistsError:
        # NFS may say so of a link that it has just made, when the first answer was lost.
        return draft.stat().st_nlink == 2
    except OSError:
        return _appear_unlinked(path, draft)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _appear_unlinked(path: Path, draft: Path) -> bool:
    """The same where the file system knows no hard links: for a moment the file is there and
    empty.
    """
    try:
        with path.open("xb") as file:
            file.write(draft.read_bytes())
    except FileExistsError:
        return False
    return True


def _written(path: Path, me: Holder) -> Path:
    # Named by the token: two processes that want the lock never share a draft.
    draft = path.with_name(f"{path.name}.{me.token}.part")
    draft.write_text(json.dumps(asdict(me)) + "\n", encoding="utf-8")
    return draft


def _read(path: Path) -> Holder | None:
    """What the lock says; None when it is missing or unreadable."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_stale(path: Path, holder: Holder | None) -> bool:
    """Whether the holder is dead: looked up on this machine, else its heartbeat is watched for
    `PATIENCE` seconds.
    """
    if holder is not None and holder.machine == _machine():
        return _dead(holder)
    # Only a change of the time counts, never its distance from this machine's clock: clocks
    # of two machines differ.
    first, until = _time_of(path), time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(_POLL)
        if _time_of(path) is None:
            return True
        if _time_of(path) != first or _read(path) != holder:
            return False
    return True


def _dead(holder: Holder) -> bool:
    """Whether a holder on this machine is known not to live."""
    if holder.machine != _machine():
        return False
    began = _began(holder.pid)
    if began is not None:
        return began != holder.began
    try:
        # Signal 0 sends nothing and only checks that the process exists (man 2 kill).
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # It exists and belongs to another user.
        return False
    # Where /proc is, it gave no start, so the process is a zombie. Elsewhere (macOS) the number
    # is all that is known, and in doubt the run is left alone.
    return Path("/proc/self/stat").exists()


def _time_of(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _this_process() -> Holder:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    pid = os.getpid()
    return Holder(
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        began=_began(pid) or "",
        since=now,
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
        token=uuid.uuid4().hex[:12],
    )


def _machine() -> str:
    """Names the machine, its last boot and the namespace of its process numbers, as containers
    may share a host name.
    """
    return " ".join([socket.gethostname(), _boot(), _process_space()])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _process_space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None when it is dead, or where there is no
    /proc.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # Field 22 (man 5 proc). The name, in parentheses, may hold anything; a zombie (Z) has ended
    # and only waits for its parent.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]

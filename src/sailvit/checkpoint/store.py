"""Checkpoints: a run's training state at several steps, streamed to disk and published all or
nothing.

state/00-00000500/        stage 0, step 500
  *.safetensors           tensors, written by torch's distributed checkpointing, so other numbers of processes read them
  values.json             everything that is no tensor
  complete.json           size and crc32 of every file; written last
state/unproved-00-00000500/  a state that nothing resumes from, for a person to look at
state/damaged-00-00000500/   likewise, one that was no longer as it was written

A folder gets its name when it is complete. Whatever interrupts a save leaves the checkpoints
before it as they were.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.distributed.tensor import DTensor

from sailvit.checkpoint.checksums import problem, summary
from sailvit.checkpoint.streaming import StreamingWriter
from sailvit.core.disk import reason
from sailvit.core.errors import RunError
from sailvit.core.memory import free_memory
from sailvit.core.run import read_json, write_json
from sailvit.distributed.processes import (
    as_one,
    broadcast,
    gather_objects,
    local_world,
    rank,
    world,
)

_NAME = re.compile(r"(\d{2,})-(\d{8,})")
_ROOM = 2
"""Copies of the state that must fit the free memory before one of them is made."""


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint."""

    path: Path
    """Its folder."""
    values: dict[str, Any]
    """Its state that is not tensors."""

    def shapes(self) -> dict[str, torch.Size]:
        """Shape of every tensor in it, by name."""
        found = _reader(self.path).read_metadata().state_dict_metadata
        return {name: entry.size for name, entry in found.items()}

    def read(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Fill `tensors`, sharded or whole, with the saved ones of the same names; RunError
        when they do not fit.
        """
        shapes = self.shapes()
        for name, tensor in tensors.items():
            if shapes.get(name) != tensor.shape:
                found = f"shape {list(shapes[name])}" if name in shapes else "no such tensor"
                raise RunError(
                    f"{self.path} has {found} for {name}; expected shape {list(tensor.shape)}: resume with the recipe"
                    " and the parts that wrote it"
                )
        load(dict(tensors), storage_reader=_reader(self.path), no_dist=world() == 1)


class Checkpoints:
    """The checkpoints in one folder. With several processes, all of them make every call."""

    def __init__(self, folder: Path, *, keep: int = 2, keep_best: bool = False) -> None:
        self.folder = folder
        self._keep = keep
        self._keep_best = keep_best
        self._pending: Future[None] | None = None
        # Saving goes on beside training, whose own collectives must not mix with these.
        self._group = dist.new_group(backend="gloo") if world() > 1 else None

    def save(
        self,
        place: tuple[int, int],
        tensors: Mapping[str, torch.Tensor],
        values: Mapping[str, Any],
        *,
        wait: bool,
        aside: str | None = None,
    ) -> Path:
        """Write the state at `place`, a stage's index and a step; returns its folder.

        An earlier save is finished first. Tensors are streamed from where they are, and
        training waits for that; tensors of an accelerator are copied to host memory instead,
        where it has room, and written in the background. Checksums, publishing and the removal
        of old checkpoints always run in the background, unless `wait`. The best checkpoint is
        the one with the lowest `values["score"]`. With `aside` the folder's name begins with
        that word: nothing resumes from it, and it replaces an earlier one of that word.

        Raises:
            RunError: this or the earlier save could not be written; complete checkpoints are as
                they were.
        """
        self.wait()
        name = f"{place[0]:02d}-{place[1]:08d}"
        final = self.folder / (f"{aside}-{name}" if aside else name)
        draft = final.with_name(final.name + ".part")
        live = {name: tensor.detach() for name, tensor in tensors.items()}
        # It is the barrier too: no rank writes before rank 0 has made the folder.
        with as_one(), _explained(self.folder):
            if rank() == 0:
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
                write_json(draft / "values.json", dict(values))
        with _explained(self.folder), _removed_on_failure(draft):
            written = self._write(live, draft)
        pool = ThreadPoolExecutor(1)
        self._pending = pool.submit(self._publish, written, draft, final, aside)
        pool.shutdown(wait=False)
        if wait:
            self.wait()
        return final

    def _write(self, tensors: dict[str, torch.Tensor], draft: Path) -> Callable[[], Any]:
        """Write `tensors`, now or in the background; the result returns when they are written."""
        given: dict[str, Any] = {
            "storage_writer": StreamingWriter(draft),
            "process_group": self._group,
            "no_dist": world() == 1,
        }
        # All ranks or none: both ways of saving have collectives, and not the same ones.
        if all(gather_objects(_may_copy(tensors))):
            copied = async_save(tensors, **given)
            assert isinstance(copied, Future)
            return copied.result
        save(tensors, **given)
        return lambda: None

    def wait(self) -> None:
        """Return when the save in progress is complete; RunError when it failed."""
        if self._pending is not None:
            with as_one():
                self.finish()

    def finish(self) -> None:
        """`wait` for what this process has to do, without the others, who may be gone."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with _explained(self.folder):
                pending.result()

    def has(self, place: tuple[int, int]) -> bool:
        """Whether there is a complete state at `place`; ask after `wait`."""
        found = self.folder / f"{place[0]:02d}-{place[1]:08d}" / "complete.json"
        return bool(broadcast(found.exists()))

    def newest(self) -> tuple[Saved | None, list[str]]:
        """The newest undamaged checkpoint, and a sentence for each damaged newer one.

        Damaged ones get another name where an older one takes their place: of those that are
        kept they would count as the newest.
        """
        self.wait()
        name, notes = broadcast(self._newest_sound() if rank() == 0 else None)
        found = self.folder / name if name else None
        return (Saved(found, read_json(found / "values.json")) if found else None), notes

    def clear(self) -> None:
        """Remove every checkpoint, finished or not, when the run is complete.

        The best one, if wanted, is renamed to `best`; nothing resumes from that name.
        """
        self.wait()
        if rank() != 0:
            return
        kept = self.folder / "best"
        # There already where an earlier call was cut short.
        earlier = [kept] if (kept / "complete.json").exists() else []
        best = self._best([*_complete(self.folder), *earlier])
        if best is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        if best != kept:
            if kept.exists():
                _remove(kept)
            best.rename(kept)
        for path in set(self.folder.glob("*")) - {kept}:
            shutil.rmtree(path, ignore_errors=True)

    def _publish(
        self, written: Callable[[], Any], draft: Path, final: Path, aside: str | None
    ) -> None:
        with _removed_on_failure(draft):
            written()
            if rank() != 0:
                return
            files = {file.name: summary(file) for file in sorted(draft.iterdir())}
            write_json(draft / "complete.json", {"files": files})
        for old in self.folder.glob(f"{aside}-*") if aside else ():
            if old != draft:
                shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            # Saved again after a resume. It is the same state: a crash between the next two
            # lines loses steps that are repeated to the bit.
            shutil.rmtree(final)
        draft.rename(final)
        self._prune()

    def _newest_sound(self) -> tuple[str | None, list[str]]:
        """Its folder's name, if there is one, and the sentences of `newest`."""
        damaged: dict[Path, str] = {}
        for path in reversed(_complete(self.folder)):
            if (found := problem(path)) is None:
                return path.name, [
                    f"{old} is damaged ({why}); an older checkpoint takes its place, and it is kept"
                    f" as {_set_aside(old).name}"
                    for old, why in damaged.items()
                ]
            damaged[path] = found
        return None, [f"{path} is damaged ({why})" for path, why in damaged.items()]

    def _prune(self) -> None:
        """Remove all but the last few and, if wanted, the best."""
        paths = _complete(self.folder)
        kept = {*paths[-self._keep :], self._best(paths)}
        for path in set(paths) - kept:
            _remove(path)

    def _best(self, paths: list[Path]) -> Path | None:
        """The checkpoint with the lowest score; None when not wanted or none has a finite one."""
        scores = (
            {path: read_json(path / "values.json").get("score") for path in paths}
            if self._keep_best
            else {}
        )
        scored = {
            path: score
            for path, score in scores.items()
            if score is not None and math.isfinite(score)
        }
        return min(scored, key=lambda path: scored[path], default=None)


def _remove(path: Path) -> None:
    """Remove a checkpoint, renamed first, so that one whose removal is cut short is not taken
    for a damaged checkpoint.
    """
    shutil.rmtree(_renamed(path, f"{path.name}.old"), ignore_errors=True)


def _set_aside(path: Path) -> Path:
    """The folder of a damaged checkpoint, under a name from which nothing resumes."""
    return _renamed(path, f"damaged-{path.name}")


def _renamed(path: Path, name: str) -> Path:
    """`path` under another name, in the place of what an earlier run left there."""
    shutil.rmtree(path.with_name(name), ignore_errors=True)
    return path.rename(path.with_name(name))


def has_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint that was written to its end."""
    return bool(_complete(folder))


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        path for path in found if _NAME.fullmatch(path.name) and (path / "complete.json").exists()
    )


def _reader(path: Path) -> Any:
    return HuggingFaceStorageReader(str(path))


def _may_copy(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether this process's tensors are on an accelerator, and host memory has room for a copy
    of them.

    On the CPU a copy would take as much memory as the state itself, for seconds per save.
    """
    held = [t.to_local() if isinstance(t, DTensor) else t for t in tensors.values()]
    free = free_memory(torch.device("cpu"))
    if free is None or all(tensor.device.type == "cpu" for tensor in held):
        return False
    return _ROOM * local_world() * sum(tensor.nbytes for tensor in held) <= free


@contextmanager
def _removed_on_failure(draft: Path) -> Iterator[None]:
    """A context that fills `draft`; a failed write removes it, which frees its space."""
    try:
        yield
    except (OSError, SafetensorError, CheckpointException):
        if rank() == 0:
            shutil.rmtree(draft, ignore_errors=True)
        raise


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what a full or unwritable disk raises into a sentence."""
    try:
        yield
    except (OSError, SafetensorError, CheckpointException) as error:
        raise RunError(
            f"the training state could not be written to {folder} ({_cause(error)}); complete checkpoints are as they"
            " were. Free space there or make the folder writable, then continue with --resume"
        ) from error


def _cause(error: BaseException) -> str:
    """The first line of the failure below torch's wrapping."""
    if isinstance(error, CheckpointException) and error.failures:
        return reason(next(iter(error.failures.values()))[0])
    return reason(error)

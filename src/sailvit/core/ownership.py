"""Which files of a folder are sailvit's own: only these are ever moved or removed, and sailvit
never writes among other files.

A folder is a run's when its manifest is one that sailvit wrote. Our files in it are known by
name and place; those of saved parts, whose names the model chooses, by the manifest's list.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Union

from sailvit.core.run import RunFolder


class Kind(Enum):
    """What a file or folder in a run's folder is; folders with rules of their own are trees."""

    FILE = "a file of ours"
    FREE = "a folder in which a library writes what it likes"
    STRANGE = "nothing of ours"


Tree = Mapping[str, Union[Kind, "Tree"]]
"""What may lie in a folder: patterns of names with what they are; folders are trees."""

HOUSEKEEPING = (
    ".gitkeep",
    ".keep",
    ".gitignore",
    ".gitattributes",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "lost+found",
    ".snapshot",
    ".nfs*",
)
"""Names that version control, desktops and file systems leave: a folder with nothing else
counts as empty."""

LOCK = "run.lock"
"""The lock of a run folder."""
ASIDE = ".previous"
"""Where a run that is being replaced lies until the new one has taken its first step."""
MOVING = ".previous.part"
"""The same while its files are being moved there, or back."""
DOOMED = ".previous.old"
"""The same while it is being removed."""

_PART: Tree = {
    r".*\.(safetensors|json|jinja|model|tiktoken|py)|(merges|vocab)\.txt": Kind.FILE,
    "additional_chat_templates": {r".*\.jinja": Kind.FILE},
}
_STATE: Tree = {
    r".*\.(safetensors|json)(\.part)?|\.metadata": Kind.FILE,
    "sharded": {r".*\.safetensors": Kind.FILE},
}
_TOP: Tree = {
    r"recipe\.yaml|manifest\.json|(metrics|proofs|events|monitoring)\.jsonl|monitoring\.safetensors"
    # Earlier names of the same two files: a run of an older version can be replaced too.
    r"|watch\.(jsonl|safetensors)"
    r"|quarantine(-\d+)?\.jsonl|(evaluation|affinity|summary)\.json|report\.html|picture\.png": Kind.FILE,
    r"(recipe\.yaml|[a-z]+(-\d+)?\.(jsonl?|safetensors)|report\.html)\.part": Kind.FILE,
    "stages": {
        r"\d{2,}-[A-Za-z0-9_-]+": {
            r"(tower|connector|language|tower-ema)(\.part|\.old)?": _PART,
            r"model\.json(\.part)?": Kind.FILE,
        }
    },
    "state": {
        r"((unproved-)?\d{2,}-\d{8,}|best)(\.part|\.old)?": _STATE,
        r"exported\.json(\.part)?": Kind.FILE,
    },
    "tensorboard": {r"events\.out\.tfevents\..*": Kind.FILE},
    "wandb": Kind.FREE,
}
_LOCKED: Tree = {**_TOP, r"run\.lock.*": Kind.FILE}
_ANSWERS: Tree = {
    r"results\.json(\.part)?|report\.html(\.part)?": Kind.FILE,
    "demo": {r"demo_\w+\.tsv(\.part)?": Kind.FILE},
    "questions": {r"demo_\w+\.json(\.part)?": Kind.FILE},
    "base|refined|at-once": {
        r"demo_\w+\.(rank\d+\.jsonl|answers\.json(\.part)?)": Kind.FILE,
        r"(base|refined|at-once)_demo_\w+\.(jsonl|xlsx)(\.part)?": Kind.FILE,
    },
}
# The demo keeps the runs that it compares inside its own, and their answers.
_RUN: Tree = {
    **_TOP,
    "target": {"base|refined|at-once": _LOCKED, r"(base|refined|at-once)\.log": Kind.FILE},
    "at-once": _LOCKED,
    r"at-once\.(log|yaml(\.part)?)": Kind.FILE,
    "answers": _ANSWERS,
}
_FOLDER: Tree = {**_RUN, r"run\.lock.*": Kind.FILE, r"\.previous(\.part|\.old)?": _RUN}


WORLD: Tree = {
    r"world\.json(\.part)?": Kind.FILE,
    "random": {"tower|language": _PART},
    r"(tower|language)(\.part|\.old)?": _PART,
    "run": _FOLDER,
}
"""What `sailvit world pretrain` writes."""


def is_run(folder: Path) -> bool:
    """Whether `folder` has the manifest of a run of ours."""
    return {"sailvit", "seed", "stages"} <= manifest_of(folder).keys()


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest in `folder`; empty when there is none that can be read."""
    try:
        found = json.loads(RunFolder(folder).manifest.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def strangers(folder: Path, tree: Tree = _FOLDER) -> list[str]:
    """Paths in a run's folder, or in one with the rules of another `tree`, that sailvit did not
    write; a folder with nothing of ours is named once.
    """
    return sorted(_Scan(folder).strange(tree))


def others(folder: Path) -> list[str]:
    """Names of what lies in `folder` beside what version control and the system leave."""
    return sorted(path.name for path in folder.iterdir() if not is_housekeeping(path.name))


def own_entries(folder: Path) -> list[Path]:
    """What lies at the top of a run's folder and is the run's: not its lock, nor what was set
    aside.
    """
    scan = _Scan(folder)
    return [
        path
        for path in sorted(scan.root.iterdir())
        if not is_housekeeping(path.name) and scan.kind(path, _RUN) is not Kind.STRANGE
    ]


def remove_own(folder: Path) -> None:
    """Remove the run's own files from its folder, one by one, and the folders that are then
    empty.
    """
    scan = _Scan(folder)
    for path in own_entries(folder):
        scan.remove(path, scan.kind(path, _RUN))


def files_below(folder: Path, root: Path) -> list[str]:
    """Every file below `folder`, as paths from `root`."""
    return sorted(
        path.relative_to(root).as_posix() for path in folder.rglob("*") if not path.is_dir()
    )


def is_housekeeping(name: str) -> bool:
    """Whether a name is one that version control, a desktop or a file system leaves."""
    return any(fnmatch(name, pattern) for pattern in HOUSEKEEPING)


def _by_name(path: Path, tree: Kind | Tree) -> Kind | Tree:
    if tree is Kind.FREE:
        return Kind.FREE if path.is_dir() else Kind.FILE
    kinds = tree.items() if isinstance(tree, Mapping) else ()
    return next((kind for p, kind in kinds if re.fullmatch(p, path.name)), Kind.STRANGE)


class _Scan:
    """A run's folder as it is compared with what sailvit writes."""

    def __init__(self, folder: Path) -> None:
        # Resolved once: whether a link leaves the run is a comparison with this path.
        self.root = Path(os.path.realpath(folder))
        self._listed: set[str] = set()
        self._parts: set[str] = set()
        for stage in manifest_of(self.root).get("stages", ()):
            self._listed |= set(stage.get("files", ()))
            self._parts |= set(stage.get("parts", {}).values())

    def strange(self, tree: Tree) -> Iterator[str]:
        """What is not ours."""
        for path in sorted(self.root.iterdir()):
            if not is_housekeeping(path.name):
                yield from self._strange(path, self.kind(path, tree))

    def kind(self, path: Path, tree: Kind | Tree) -> Kind | Tree:
        """What `path` is by the rules of its folder."""
        found = _by_name(path, tree)
        if found is not Kind.STRANGE and path.is_symlink():
            # A link of ours leads to another place in the run; any other one is somebody's
            # arrangement.
            inside = Path(os.path.realpath(path)).is_relative_to(self.root)
            return Kind.FILE if inside else Kind.STRANGE
        if not path.is_dir():
            if is_housekeeping(path.name):
                return Kind.FILE
            if tree is _PART:
                found = self._part_file(path, found)
        return found if path.is_dir() == (found is not Kind.FILE) else Kind.STRANGE

    def remove(self, path: Path, kind: Kind | Tree) -> None:
        """Remove `path` as far as it is ours."""
        if kind is Kind.STRANGE:
            return
        if kind is Kind.FILE:
            path.unlink(missing_ok=True)
            return
        for inner in list(path.iterdir()):
            self.remove(inner, self.kind(inner, kind))
        if not any(path.iterdir()):
            path.rmdir()

    def _strange(self, path: Path, kind: Kind | Tree) -> Iterator[str]:
        if kind is Kind.STRANGE:
            yield path.relative_to(self.root).as_posix()
        elif kind is not Kind.FILE:
            for inner in sorted(path.iterdir()):
                yield from self._strange(inner, self.kind(inner, kind))

    def _part_file(self, path: Path, found: Kind | Tree) -> Kind | Tree:
        """What a part's file is: by the manifest's list for a part that it names; by the file's
        name for a part that was not finished.
        """
        part = path.parent.relative_to(self.root).as_posix()
        if part in self._parts and any(name.startswith(f"{part}/") for name in self._listed):
            listed = path.relative_to(self.root).as_posix() in self._listed
            return Kind.FILE if listed else Kind.STRANGE
        return found

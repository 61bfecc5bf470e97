"""The journal: lines about a run that survive a full disk, as they wait in memory until there
is space.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sailvit.core.atomic import whole_file
from sailvit.core.disk import reason
from sailvit.core.errors import RunError
from sailvit.core.formatting import short
from sailvit.core.recipe import PARTS
from sailvit.core.run import append_lines
from sailvit.distributed.processes import as_one
from sailvit.models.loading.build import ModelBundle


class Journal:
    """Writes this process's lines of a run, in order.

    Training goes on while they cannot be written, but no state is saved ahead of them: a run
    resumed from it would lack these lines.
    """

    def __init__(self, announce: Callable[[dict[str, Any]], None] = lambda line: None) -> None:
        """`announce` is told once when lines begin to wait, and once when they are written."""
        self._announce = announce
        self._waiting: dict[Path, list[dict[str, Any]]] = {}

    def write(self, path: Path, line: dict[str, Any]) -> None:
        """Append a line to `path`, now or when that can be written again."""
        before = bool(self._waiting)
        self._waiting.setdefault(path, []).append(line)
        problem = self._catch_up()
        if problem and not before:
            self._announce(
                {
                    "note": f"{path} cannot be written ({problem}); training goes on and its lines wait in memory, but"
                    " it stops when a state is due: make room now"
                }
            )
        elif before and not problem:
            self._announce({"note": f"{path.parent} can be written again; no line is lost"})

    def settle(self) -> None:
        """Write the waiting lines; RunError on all processes when one cannot."""
        with as_one():
            if problem := self._catch_up():
                raise RunError(
                    f"the lines of the run could not be written ({problem}), and no state is saved ahead of them."
                    " Free space there or make the folder writable, then continue with --resume"
                )

    def _catch_up(self) -> str | None:
        """Write all waiting lines; returns why that failed, None if it did not."""
        try:
            for path in list(self._waiting):
                append_lines(path, self._waiting[path])
                del self._waiting[path]
        except OSError as error:
            return reason(error)
        return None


def keep_lines(path: Path, stage: int, step: int) -> None:
    """Drop the lines of steps after the state that a run resumes from: they are done again."""
    if not path.exists():
        return
    kept = []
    # Not by `splitlines`, which also ends lines where a text in them holds U+2028 or U+0085.
    with path.open(encoding="utf-8") as file:
        for text in file:
            # Half a line, from a kill in the middle of writing, goes too.
            line = json.loads(text) if text.endswith("\n") else None
            if line and (line["stage_index"], line["step"]) <= (stage, step if step else -1):
                kept.append(text)
    # Replaced at once, as the run may be killed here too.
    with whole_file(path) as draft:
        draft.write_text("".join(kept), encoding="utf-8")


def parts_note(bundle: ModelBundle) -> dict[str, Any]:
    """The parts' numbers of parameters, as a line to announce; nothing is written."""
    counts = {
        part: sum(parameter.numel() for parameter in bundle.mllm.part(part).parameters())
        for part in PARTS
    }
    told = ", ".join(f"{part} {short(count)}" for part, count in counts.items())
    return {"note": f"parameters: {told}", "parts": counts}

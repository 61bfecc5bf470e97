"""The gate: an export is reloaded in a fresh process and compared with the model in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from sailvit.core.errors import ModelError, one_line

TOLERANCE = 1e-4
"""Largest error of float32 tensors, as a share of the largest expected number where that is
above 1."""
PIXEL_LEVELS = 1.01
"""Largest difference of resized pixels, in levels of 256: filters of other libraries round a
few pixels the other way. Features are compared on equal pixels."""

Reload = Callable[[Path, Path], None]
"""Loads an export (first path) and writes what it gives to a folder of work (second)."""


@dataclass(frozen=True)
class Parity:
    """What the comparison found."""

    worst: Mapping[str, float]
    """Largest error by kind: pixels in levels, the others relative to the largest number."""
    compared: int
    """Tensors that were compared."""
    tokens: int
    """Token ids that were compared and are equal."""

    def as_json(self) -> dict[str, Any]:
        """What parity.json holds."""
        return {
            "tolerance": TOLERANCE,
            "pixel_levels": PIXEL_LEVELS,
            "worst": dict(self.worst),
            "compared_tensors": self.compared,
            "equal_tokens": self.tokens,
        }


def reload_fresh(export: Path, work: Path) -> None:
    """Reload an export in a process of its own that does not know sailvit.

    Raises:
        ModelError: it cannot be loaded, or does not run.
    """
    script = Path(__file__).with_name("reload_model.py")
    # -I: neither the current folder nor PYTHONPATH may lend it our code.
    command = [sys.executable, "-I", str(script), str(export), str(work)]
    # Copies of the export's code are of no use afterwards.
    environment = {**os.environ, "HF_MODULES_CACHE": str(work / "modules")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise ModelError(
            f"stock transformers cannot load or run the export: {one_line(reason, 400)}; nothing"
            " was published"
        )
    if json.loads((work / "found.json").read_text(encoding="utf-8"))["sailvit"]:
        raise ModelError("the export imports sailvit, which its users do not have")


def compare(work: Path, levels: Sequence[float]) -> Parity:
    """Compare what was found with what was expected.

    `levels` are what a normalised unit of each channel is worth, in levels of 256.

    Raises:
        ModelError: something differs by more than it may; it names the first such tensor or
            token.
    """
    expected = load_file(work / "expected.safetensors")
    found = load_file(work / "found.safetensors")
    cases = json.loads((work / "cases.json").read_text(encoding="utf-8"))
    worst: dict[str, float] = {}
    tokens = 0
    for case in cases["cases"]:
        for what in ("tokens", "pixels", "features", "visual", "logits", "answer"):
            name = f"{case['name']}.{what}"
            if name not in expected:
                continue
            wanted, given = expected[name], found[name]
            if what in ("tokens", "answer"):
                tokens += _same_tokens(name, wanted, given)
            else:
                error = _error(name, wanted, given, levels if what == "pixels" else None)
                worst[what] = max(worst.get(what, 0.0), error)
                _refuse(name, error, PIXEL_LEVELS if what == "pixels" else TOLERANCE)
    tokens += _same_batch(cases, expected, found)
    return Parity(worst, len(expected), tokens)


def _same_batch(
    cases: dict[str, Any], expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]
) -> int:
    """Tokens of the answers of one batch, equal to those one at a time."""
    if not cases["batched"]:
        return 0
    rows = found["batch.answer"]
    wanted = [expected[f"{case['name']}.answer"] for case in cases["cases"]]
    return sum(
        # Rows of a batch are padded behind the end of their answers, which is no difference.
        _same_tokens(f"batch, {case['name']}.answer", answer, row[: len(answer)])
        for case, answer, row in zip(cases["cases"], wanted, rows, strict=True)
    )


def _same_tokens(name: str, wanted: torch.Tensor, given: torch.Tensor) -> int:
    """How many tokens are equal; ModelError at the first that is not."""
    ours, theirs = wanted.tolist(), given.tolist()
    if ours == theirs:
        return len(ours)
    shared = zip(ours, theirs, strict=False)
    at = next((n for n, (a, b) in enumerate(shared) if a != b), min(len(ours), len(theirs)))
    raise ModelError(
        f"{name} differs at token {at}: expected {ours[at : at + 5]} of {len(ours)}, found"
        f" {theirs[at : at + 5]} of {len(theirs)}; nothing was published"
    )


def _error(
    name: str, wanted: torch.Tensor, given: torch.Tensor, levels: Sequence[float] | None
) -> float:
    if wanted.shape != given.shape:
        raise ModelError(
            f"{name} has shape {list(given.shape)}; expected {list(wanted.shape)}; nothing was"
            " published"
        )
    apart = (wanted.float() - given.float()).abs()
    if levels is None:
        # Absolute below 1: tensors near zero would fail by rounding alone.
        return float(apart.max()) / max(1.0, float(wanted.abs().max()))
    # Channels come second in pixels [I, C, H, W], first in patches [P, C * F * H * W] of a row, and
    # last in other flattened patches.
    first = apart.reshape(len(apart), 3, -1) if apart.ndim == 2 else apart
    by_channel = apart.reshape(-1, 3) if apart.ndim == 3 else first.transpose(1, -1)
    return float((by_channel * torch.tensor(levels)).max())


def _refuse(name: str, error: float, limit: float) -> None:
    # Not `error > limit`: that is false for NaN.
    if not error <= limit:
        raise ModelError(
            f"{name} differs by {error:.3g}; at most {limit:g} is allowed; nothing was published"
        )

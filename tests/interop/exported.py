"""Exports of tiny models, reloaded in this process: a fresh one takes ten seconds."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from sailvit.inference.model import RunModel
from sailvit.interop.export.export import export
from sailvit.interop.export.gate import Parity
from sailvit.interop.export.reload_model import reload
from sailvit.interop.export.trained import Trained, round_weights
from tiny_parts import Parts

LINEAGE = {
    "run": "tiny",
    "stage": "fine",
    "parents": {
        "tower": {"source": "apple/aimv2-large-patch14-224"},
        "language": {"source": "Qwen/Qwen3-0.6B"},
        "connector": {"source": "fresh, seed 0"},
    },
    "data": {"chat": "0123abcd"},
    "stages": [
        {"name": "fine", "index": 0, "train": {"tower": 0.5}, "steps": 9, "samples": 18},
    ],
}


def loader(
    parts: Parts,
    tower: str = "siglip",
    language: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    change: Callable[[Any], None] | None = None,
    **settings: Any,
) -> Callable[[], Trained]:
    """What makes a tiny model; `change` may change its bundle first."""

    def load() -> Trained:
        bundle = parts.build(tower, language, **settings)
        if change is not None:
            change(bundle)
        model = RunModel(bundle)
        round_weights(model, dtype)
        return Trained(model, dtype, LINEAGE)

    return load


def written(load: Callable[[], Trained], layout: str, out: Path) -> Parity:
    return export(load, layout, out, reload=reload)


def run_card(export: Path, folder: Path, width: int = 40, height: int = 30) -> str:
    """The first line that the example in an export's card prints for an image.

    It runs in a fork of this process: a fresh one would import transformers for seconds.
    """
    card = (export / "README.md").read_text(encoding="utf-8")
    code = card.partition("```python\n")[2].partition("```")[0]
    code = code.replace("path/to/this/folder", str(export))
    Image.new("RGB", (width, height), (200, 10, 90)).save(folder / "image.jpg")
    running = multiprocessing.get_context("fork").Process(target=_run, args=(code, folder))
    running.start()
    running.join()
    assert running.exitcode == 0, (folder / "card.err").read_text()
    return (folder / "card.out").read_text().split("\n")[0]


def _run(code: str, folder: Path) -> None:
    """Run code in a folder, and write what it prints to files there."""
    os.chdir(folder)
    with (
        (folder / "card.out").open("w") as sys.stdout,
        (folder / "card.err").open("w") as sys.stderr,
    ):
        exec(compile(code, "card", "exec"), {"__name__": "__main__"})

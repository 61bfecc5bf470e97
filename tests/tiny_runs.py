"""Tiny data on disk, recipes over it, and stages to take single steps with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder, read_lines
from sailvit.models.loading.build import ModelBundle
from sailvit.models.measures.flops import flops_model
from sailvit.training.objectives.base import make_objectives
from sailvit.training.optim.optimizer import freeze, make_optimizer
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from sailvit.training.trainer import Trainer
from tiny_parts import Parts, picture

WORDS = ["red", "blue", "large", "small", "square", "circle", "left", "right", "what", "colour"]
OPTIM = {"lr": 1e-3, "clip": 1.0}


def write_data(folder: Path) -> dict[str, Any]:
    """LLaVA conversations with no, one and two images, captions, and plain texts; returns their sources."""
    for index in range(6):
        Image.fromarray(picture(index, 40, 30)).save(_made(folder / "images") / f"{index}.png")
    chats = []
    for index in range(9):
        shown = [f"{n % 6}.png" for n in range(index, index + index % 3)]
        question = "<image>\n" * len(shown) + "what colour is the square?"
        turns = [
            {"from": "human", "value": question},
            {"from": "gpt", "value": " ".join(WORDS[: 1 + index % 4])},
        ]
        chats.append(
            {"id": str(index), "conversations": turns, **({"images": shown} if shown else {})}
        )
    (folder / "chat.json").write_text(json.dumps(chats))
    rows = [
        {"image": f"{n}.png", "text": f"a {WORDS[n % 4]} {WORDS[4 + n % 2]} {WORDS[n]}"}
        for n in range(6)
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [
        {"conversations": [chats[0]["conversations"][0], {"from": "gpt", "value": word}]}
        for word in WORDS
    ]
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    images = str(folder / "images")
    return {
        "chat": {"format": "llava", "path": str(folder / "chat.json"), "images": images},
        "captions": {
            "format": "captions",
            "path": str(folder / "captions.jsonl"),
            "images": images,
        },
        "text": {"format": "llava", "path": str(folder / "text.jsonl")},
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def stage(name: str = "only", **changes: Any) -> dict[str, Any]:
    values = {
        "name": name,
        "train": {"connector": 1.0, "tower": 0.5, "language": 0.25},
        "data": ["chat"],
        "optim": OPTIM,
        "length": {"samples": 20},
        "global_batch": 2,
    }
    return {**values, **changes}


def three_stages() -> list[dict[str, Any]]:
    """Connector, then tower too, then everything, over mixtures and with both objectives."""
    both = {"next_token": 1.0, "contrastive": 0.1}
    return [
        stage("coarse", train={"connector": 1.0}, data=["captions"], objectives=both),
        stage(
            "fine",
            train={"connector": 1.0, "tower": 0.5},
            data={"captions": 1, "chat": 2},
            objectives=both,
        ),
        stage("world", data={"chat": 2, "text": 1}),
    ]


def recipe(
    parts: Parts, sources: dict[str, Any], stages: Sequence[dict[str, Any]], **changes: Any
) -> Recipe:
    values = {
        "name": "tiny",
        "seed": 3,
        "model": parts.config().model_dump(),
        "sequence": 100,
        "precision": "fp32",
        "sources": sources,
        "stages": list(stages),
        "proof_steps": 2,
        "workers": 0,
        "monitoring": {"every": None},
    }
    return Recipe.model_validate({**values, **changes})


def train(made: Recipe, folder: Path, *callbacks: Callback, resume: bool = False) -> ModelBundle:
    return Trainer(made, RunFolder(folder), callbacks=callbacks).run(resume=resume)


def without_pages(patch: pytest.MonkeyPatch) -> None:
    """Runs end without drawing their page, which takes as long as a tiny training; its file is there."""
    patch.setattr(
        "sailvit.api.running.write_report", lambda folder: folder.report.write_text("<html>")
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return list(read_lines(path))


def weights(bundle: ModelBundle) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in bundle.mllm.state_dict().items()}


def stage_run(
    bundle: ModelBundle, settings: dict[str, Any], folder: Path = Path(), **changes: Any
) -> StageRun:
    """A stage that is ready to step, without a loader."""
    sources = {name: {"format": "llava"} for name in settings["data"]}
    values = {
        "name": "run",
        "model": {"tower": "-", "language": "-"},
        "sequence": 512,
        "precision": "fp32",
    }
    made = Recipe.model_validate({**values, "sources": sources, "stages": [settings], **changes})
    only = made.stages[0]
    freeze(bundle.mllm, only)
    objectives = make_objectives(list(only.objectives))
    return StageRun(
        recipe=made,
        index=0,
        folder=RunFolder(folder),
        bundle=bundle,
        objectives=objectives,
        optimizer=make_optimizer(bundle.mllm, objectives.values(), only),
        loader=None,  # type: ignore[arg-type]
        device=torch.device("cpu"),
        target=float(only.length.samples or only.length.tokens or 1),
        flops=flops_model(bundle.mllm),
        peak=1e12,
    )


class Record(Callback):
    """Keeps what it saw."""

    def __init__(self) -> None:
        self.moments: list[str] = []
        self.records: list[StepRecord] = []

    def stage_started(self, run: StageRun) -> None:
        self.moments.append(f"started {run.stage.name}")

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        self.records.append(record)

    def stage_ended(self, run: StageRun) -> None:
        self.moments.append(f"ended {run.stage.name}")

    def close(self) -> None:
        self.moments.append("closed")

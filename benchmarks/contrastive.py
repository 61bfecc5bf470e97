"""What the contrastive objective costs with accumulation: samples per second with it and without.

python benchmarks/contrastive.py
"""

from __future__ import annotations

import time
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from publish import publish, spread

from sailvit.core.batch import Batch, Step
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder
from sailvit.data.processing.collate import collate
from sailvit.data.processing.processor import Processor
from sailvit.data.sources import open_source
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.models.measures.flops import flops_model
from sailvit.recipes.loader import load_recipe
from sailvit.training.objectives.base import make_objectives
from sailvit.training.optim.optimizer import freeze, make_optimizer
from sailvit.training.stages.loop import train_step
from sailvit.training.stages.stage_run import StageRun

PACKS = 8
"""Packs of a step, one per micro-batch."""
STEPS = 1
"""Different steps."""
ROUNDS = 5
"""Rounds over the ways, of which the first is left out; in a round every way takes every step."""
WAYS: dict[str, dict[str, Any]] = {
    "frozen, without": {"train": {"connector": 1.0}, "objectives": {"next_token": 1.0}},
    "frozen, kept features": {"train": {"connector": 1.0}},
    "frozen, computed twice": {"train": {"connector": 1.0}, "kept_features": 0.0},
    "training, without": {"objectives": {"next_token": 1.0}},
    "training, negatives of the step": {},
    "training, negatives of the micro-batch": {"negatives": "micro_batch"},
}
"""What each changes of a stage that trains tower and connector with both objectives."""


def job(bundle: ModelBundle, changes: dict[str, Any]) -> StageRun:
    """The demo's second stage, changed, without a loader."""
    recipe = load_recipe("demo")
    kept = changes.get("kept_features", 2.0)
    update = {key: value for key, value in changes.items() if key != "kept_features"}
    values = recipe.stages[1].model_dump() | {"global_batch": PACKS} | update
    whole = recipe.model_dump() | {"stages": [values], "parallel": {"kept_features": kept}}
    made = Recipe.model_validate(whole)
    stage = made.stages[0]
    freeze(bundle.mllm, stage)
    objectives = make_objectives(list(stage.objectives))
    return StageRun(
        recipe=made,
        index=0,
        folder=RunFolder(Path()),
        bundle=bundle,
        objectives=objectives,
        optimizer=make_optimizer(bundle.mllm, objectives.values(), stage),
        loader=None,  # type: ignore[arg-type]
        device=torch.device("cpu"),
        target=1e9,
        flops=flops_model(bundle.mllm),
        peak=1e12,
    )


def steps() -> list[tuple[Batch, ...]]:
    """Packs of captions, filled to the recipe's sequence."""
    recipe = load_recipe("demo")
    bundle = build(recipe.model, 0)
    processor = Processor(bundle.tokenizer, bundle.layout, recipe.sequence)
    source = open_source("simple", recipe.sources["simple"], Path())
    packs: list[list[Any]] = [[]]
    for index in cycle(range(len(source))):
        sample = processor("simple", source[index])
        if sum(len(s.tokens) for s in packs[-1]) + len(sample.tokens) > recipe.sequence:
            if len(packs) == PACKS * STEPS:
                break
            packs.append([])
        packs[-1].append(sample)
    made = [collate([pack]) for pack in packs]
    return [tuple(made[at : at + PACKS]) for at in range(0, len(made), PACKS)]


def main() -> None:
    """All ways in turn, so that a busy machine slows all of them alike."""
    quiet_libraries()
    torch.set_num_threads(1)
    taken = steps()
    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    # A model each, as freezing is of the model.
    jobs = {name: job(build(load_recipe("demo").model, 0), way) for name, way in WAYS.items()}
    for number in range(ROUNDS):
        for name, ready in jobs.items():
            ready.model.train()
            began = time.process_time()
            for batches in taken:
                train_step(ready, Step(batches, {}), 0.0, 0.0)
            seconds = time.process_time() - began
            if number:
                samples = sum(len(b.sample_ids) for batches in taken for b in batches)
                speeds[name].append(samples / seconds)
    ways = {}
    for name, each in speeds.items():
        without = speeds[f"{name.split(',')[0]}, without"]
        shares = [speed / base for speed, base in zip(each, without, strict=True)]
        ways[name] = {"samples_per_s": spread(each), "share_of_speed_without": spread(shares)}
        print(name, ways[name])
    publish(
        "contrastive",
        "python benchmarks/contrastive.py",
        {
            "precision": "fp32",
            "packs": PACKS,
            "micro_batch": 1,
            "rounds": ROUNDS - 1,
            "clock": "processor seconds",
            "ways": ways,
        },
    )


if __name__ == "__main__":
    main()

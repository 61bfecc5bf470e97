"""Does the search find the rate? The demo's coarse stage from several rates, each kept and each searched from.

    python benchmarks/adalrs.py

Starts are multiples of the rate that the demo's recipe gives. Both ways follow the same shape (warm-up, stable, decay),
so that they differ in nothing but the search. Per run: the mean loss of the last tenth of the steps, the rate in force
at the end of the stable part, and how often the search kept and lowered it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from publish import publish

from sailvit.api.running import train_new
from sailvit.api.screen import Screen
from sailvit.core.recipe import Length, Recipe
from sailvit.core.run import RunFolder, read_lines
from sailvit.core.schedule import ScheduleConfig
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.recipes.loader import load_recipe

SHAPE: dict[str, Any] = {"warmup": 0.03, "decay": {"share": 0.2}}
"""What fixed and searched rates have in common."""


def coarse(samples: int, seed: int, rate: float, schedule: ScheduleConfig) -> Recipe:
    """The demo with its first stage alone."""
    recipe = load_recipe("demo", [f"seed={seed}"])
    stage = recipe.stages[0]
    changes = {
        "length": Length(samples=samples),
        "optim": stage.optim.model_copy(update={"lr": rate}),
        "schedule": schedule,
        "save": (),
    }
    return recipe.model_copy(update={"stages": [stage.model_copy(update=changes)]})


def measure(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Final loss, rate found, changes and seconds of one run."""
    run = RunFolder(folder)
    train_new(recipe, run, Screen())
    stage, steps = recipe.stages[0], list(read_lines(run.metrics))
    losses = [
        sum(stage.objectives[name] * value for name, value in line["loss"].items())
        for line in steps
    ]
    events = Counter(line["event"] for line in read_lines(run.events))
    return {
        "final_loss": round(statistics.mean(losses[-max(len(losses) // 10, 1) :]), 4),
        "rate": max(line["lr"]["connector"] for line in steps[-len(steps) // 4 :]),
        "kept": events["rate kept"],
        "lowered": events["rate lowered"],
        "steps": len(steps),
        "seconds": round(sum(line["seconds"] for line in steps), 1),
    }


def main() -> None:
    """Run every start in both ways and write the table, whatever it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=8000, help="samples per run")
    parser.add_argument(
        "--starts",
        type=float,
        nargs="+",
        default=[0.1, 1.0, 10.0],
        help="multiples of the recipe's rate",
    )
    parser.add_argument("--window", type=int, default=16, help="steps of the search's first window")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    command = " ".join(["python benchmarks/adalrs.py", *sys.argv[1:]])
    torch.set_num_threads(2)
    quiet_libraries()
    ways = {
        "fixed": ScheduleConfig(name="wsd", **SHAPE),
        "adalrs": ScheduleConfig(
            name="adalrs", search={"window": given.window, "until": 0.6}, **SHAPE
        ),
    }
    peak = load_recipe("demo").stages[0].optim.lr
    began, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            for start in given.starts:
                for way, schedule in ways.items():
                    recipe = coarse(given.samples, seed, start * peak, schedule)
                    found = measure(recipe, Path(folder) / f"{way}-{start:g}-{seed}")
                    rows.append(
                        {
                            "way": way,
                            "start": start,
                            "seed": seed,
                            "start_rate": start * peak,
                            **found,
                        }
                    )
                    print(rows[-1], file=sys.stderr)
    values = {"samples": given.samples, "window": given.window, "rows": rows}
    publish("adalrs", command, {**values, "seconds": round(time.perf_counter() - began)})


if __name__ == "__main__":
    main()

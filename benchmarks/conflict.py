"""The initialisation conflict, seen: what the tower and the language lose in gradual and in all-at-once training.

    python benchmarks/conflict.py

Two runs from the demo's shipped weights on as many samples of the same mixture: `gradual` in the demo's three stages,
`joint` with all parts at once. Both are looked at as often, on the same held-out images and texts of the world. Drift
is linear CKA of the tower's features to the base tower's (1 is unchanged), perplexity that of answers to texts alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from gradual_vs_joint import follow_parent, gradual, joint
from matplotlib.figure import Figure
from publish import publish

from sailvit.api.running import train_new
from sailvit.api.screen import Screen
from sailvit.core.monitoring import MonitoringConfig
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder, read_lines
from sailvit.models.loading.quiet import quiet_libraries

COLOURS = {"gradual": "#1d5fd1", "joint": "#b45309"}
LOOKS = 60
"""Looks per run, about."""
SAMPLES_PER_STEP = 16
"""Of a pack of the demo, about."""
CHARTS = (
    ("cka", "Tower: likeness to the base tower", "linear CKA on held-out images"),
    ("perplexity", "Language: perplexity of texts alone", "on held-out texts"),
    ("nearest", "Affinity: images to the nearest word", "distance in the joint plane"),
)


def ways(share: float) -> dict[str, Recipe]:
    """Both recipes, watched alike and without a limit on what that costs."""
    whole = gradual(0, share)
    total = sum(stage.length.samples or 0 for stage in whole.stages)
    every = max(1, round(total / SAMPLES_PER_STEP / LOOKS))
    watch = MonitoringConfig(
        every=every, share=None, source="unseen", tiles=128, texts=200, report=()
    )
    return {
        name: recipe.model_copy(update={"monitoring": watch})
        for name, recipe in (("gradual", whole), ("joint", joint(whole, total)))
    }


def follow(name: str, share: float, threads: int) -> dict[str, Any]:
    """Train one way; what the looks saw, over all samples drawn so far."""
    torch.set_num_threads(threads)
    quiet_libraries()
    recipe = ways(share)[name]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / name)
        train_new(recipe, run, Screen())
        looks, steps = list(read_lines(run.monitoring)), list(read_lines(run.metrics))
    before = [0]
    for stage in recipe.stages:
        before.append(before[-1] + (stage.length.samples or 0))
    rows = [
        {
            "samples": before[look["stage_index"]] + look["samples"],
            "stage": look["stage"],
            "cka": round(look["cka"], 5),
            "perplexity": round(look["perplexity"], 4),
            **{key: round(value, 4) for key, value in look["affinity"].items()},
        }
        for look in looks
    ]
    return {
        "way": name,
        "seconds": round(time.perf_counter() - began, 1),
        "looks_cost": round(sum(look["seconds"] for look in looks), 2),
        "final_loss": round(
            sum(step["loss"]["next_token"] for step in steps[-50:]) / len(steps[-50:]), 4
        ),
        "stages": [
            [stage.name, begin] for stage, begin in zip(recipe.stages, before, strict=False)
        ],
        "looks": rows,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Where both ended, and the worst on the way."""
    return {
        run["way"]: {
            "cka": run["looks"][-1]["cka"],
            "lowest_cka": min(row["cka"] for row in run["looks"]),
            "perplexity": run["looks"][-1]["perplexity"],
            "highest_perplexity": max(row["perplexity"] for row in run["looks"]),
            "base_perplexity": run["looks"][0]["perplexity"],
            "final_loss": run["final_loss"],
        }
        for run in runs
    }


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """A chart per measure, both ways in each, stages of the gradual one as bands."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axes, (key, title, unit) in zip(figure.subplots(1, len(CHARTS)), CHARTS, strict=True):
        for run in runs:
            x, y = ([row[column] for row in run["looks"]] for column in ("samples", key))
            axes.plot(x, y, color=COLOURS[run["way"]], linewidth=1.8, label=run["way"])
        stages = next(run["stages"] for run in runs if run["way"] == "gradual")
        for name, begin in stages:
            axes.axvline(begin, color="#9aa4b2", linewidth=0.8, linestyle=":")
            axes.annotate(name, (begin, 1), xycoords=("data", "axes fraction"), xytext=(3, -10),
                          textcoords="offset points", color="#5b6675", fontsize=8)  # fmt: skip
        axes.margins(y=0.15)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.set_ylabel(unit)
        axes.set_xlabel("samples")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e3e7ec")
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False
    )
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train both ways side by side, draw and publish."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0, help="share of the demo's samples")
    parser.add_argument("--threads", type=int, default=1, help="per run; two runs go side by side")
    parser.add_argument("--name", default="conflict", help="of the files in benchmarks/results")
    given = parser.parse_args()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=follow_parent) as pool:
        started = [pool.submit(follow, name, given.share, given.threads) for name in COLOURS]
        runs = [run.result() for run in started]
    draw(runs, Path(__file__).parents[1] / "docs" / "pictures" / f"{given.name}.png")
    command = " ".join(["python benchmarks/conflict.py", *sys.argv[1:]])
    publish(given.name, command, {"share": given.share, "summary": summary(runs), "runs": runs})


if __name__ == "__main__":
    main()

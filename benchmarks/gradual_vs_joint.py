"""Is it the gradual part? Towers refined in several ways from one base, each judged by target training on top of it.

    python benchmarks/gradual_vs_joint.py --seeds 3

Ways: `gradual` is the demo's recipe; `no_contrastive` the same without that objective; `joint_samples` trains all parts
at once on as many samples of the same mixture; `joint_compute` on as many FLOPs. Every tower, and the base, then gets a
fresh connector and the base language, once with the tower frozen and once with it training. Mean and spread over seeds
are of held-out exact match, 0 to 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from publish import publish

from sailvit.api.running import train_new
from sailvit.api.screen import Screen
from sailvit.core.recipe import PARTS, Length, PortionConfig, Recipe, Stage, TrainConfig
from sailvit.core.run import RunFolder, read_lines
from sailvit.evaluation.scores import mean_score, task_scores
from sailvit.evaluation.scoring.short_answers import equal_phrases
from sailvit.evaluation.world import held_out
from sailvit.inference.answers import answer
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.preflight.plan import plan
from sailvit.recipes.loader import load_recipe
from sailvit.synthetic.world.tasks import EVAL_TASKS

RATE = 1e-3
"""Peak rate of all-at-once training: that of the gradual stages in which the tower trains."""


def gradual(seed: int, share: float) -> Recipe:
    """The demo's recipe, every stage at `share` of its samples."""
    recipe = load_recipe("demo", [f"seed={seed}", "workers=0"])
    return _with_stages(
        recipe, [_lasting(stage, share * _samples(stage)) for stage in recipe.stages]
    )


def no_contrastive(recipe: Recipe) -> Recipe:
    """The same without the contrastive objective."""
    return _with_stages(
        recipe,
        [stage.model_copy(update={"objectives": {"next_token": 1.0}}) for stage in recipe.stages],
    )


def joint(recipe: Recipe, samples: float) -> Recipe:
    """All parts at once, over the union of the stages' mixtures, each in its own proportion."""
    mixture: dict[str, float] = {}
    for stage in recipe.stages:
        assert isinstance(stage.data, dict)
        whole = sum(portion.share for portion in stage.data.values())
        for name, part in stage.data.items():
            mixture[name] = mixture.get(name, 0.0) + part.share / whole * _samples(stage)
    stage = recipe.stages[1].model_copy(
        update={
            "name": "joint",
            "train": {part: TrainConfig() for part in PARTS},
            "data": {name: PortionConfig(share=share) for name, share in mixture.items()},
            "optim": recipe.stages[1].optim.model_copy(update={"lr": RATE}),
        }
    )
    return _with_stages(recipe, [_lasting(stage, samples)])


def flops(recipe: Recipe) -> float:
    """Training FLOPs of a whole recipe."""
    return sum(stage.flops or 0.0 for stage in plan(recipe).stages)


class Study:
    """Runs and judges recipes in a scratch folder."""

    def __init__(self, folder: Path, share: float, per_task: int) -> None:
        self.folder = folder
        self.share = share
        self.per_task = per_task

    def refine(self, name: str, recipe: Recipe) -> tuple[str, float]:
        """The folder of the refined tower, and the seconds its training took."""
        run = RunFolder(self.folder / f"{name}-{recipe.seed}")
        train_new(recipe, run, Screen())
        seconds = sum(line["seconds"] for line in read_lines(run.metrics))
        return str(run.stage(len(recipe.stages) - 1, recipe.stages[-1].name) / "tower"), seconds

    def judge(self, name: str, tower: str, seed: int, *, frozen: bool) -> dict[str, float]:
        """Held-out exact match per task, and its mean, of target training on `tower`."""
        recipe = load_recipe(
            "demo-target", [f"seed={1000 + seed}", f"model.tower={tower}", "workers=0"]
        )
        stages = [_lasting(stage, self.share * _samples(stage)) for stage in recipe.stages]
        if not frozen:
            stages[-1] = stages[-1].model_copy(
                update={"train": {**stages[-1].train, "tower": TrainConfig()}}
            )
        run = RunFolder(self.folder / f"target-{name}-{seed}-{'frozen' if frozen else 'free'}")
        model = train_new(_with_stages(recipe, stages), run, Screen())
        asked = held_out(EVAL_TASKS, self.per_task, seed)
        predictions = answer(model, [record for _, record in asked])
        hits = [
            equal_phrases(said, [record.turns[-1].text]) == 1
            for said, (_, record) in zip(predictions, asked, strict=True)
        ]
        scores = task_scores([task for task, _ in asked], hits)
        return {"mean": mean_score(scores), **scores}


def ways(recipe: Recipe) -> dict[str, Recipe | None]:
    """The recipe that refines the tower in each way; none for the base."""
    total = sum(_samples(stage) for stage in recipe.stages)
    whole = joint(recipe, total)
    return {
        "base": None,
        "gradual": recipe,
        "joint_samples": whole,
        "no_contrastive": no_contrastive(recipe),
        "joint_compute": joint(recipe, total * flops(recipe) / flops(whole)),
    }


def follow_parent() -> None:
    """End this process when the one that started it is gone, so that a killed study leaves none behind."""
    parent = parent_process()
    assert parent is not None
    threading.Thread(
        target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True
    ).start()


def run_way(way: str, seed: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Refine a tower in one way and judge it: a row per kind of target training."""
    torch.set_num_threads(1)
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), given.share, given.per_task)
        whole = gradual(seed, given.share)
        recipe = ways(whole)[way]
        tower, seconds = study.refine(way, recipe) if recipe else (whole.model.tower, 0.0)
        rows = []
        for kind in given.target_towers:
            scores = study.judge(way, tower, seed, frozen=kind == "frozen")
            rows.append(
                {
                    "way": way,
                    "target_tower": kind,
                    "seed": seed,
                    "refine_seconds": round(seconds, 1),
                    **scores,
                }
            )
    return rows


def earlier(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the last results, if those were of as many samples."""
    path = Path(__file__).parent / "results" / "gradual_vs_joint.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return list(found["rows"]) if found.get("share") == given.share else []


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over seeds."""
    lines = []
    for way, kind in dict.fromkeys((row["way"], row["target_tower"]) for row in rows):
        chosen = [row for row in rows if (row["way"], row["target_tower"]) == (way, kind)]
        means = [row["mean"] for row in chosen]
        lines.append(
            {
                "way": way,
                "target_tower": kind,
                "mean": round(statistics.mean(means), 4),
                "spread": round(statistics.stdev(means), 4) if len(means) > 1 else None,
                "seeds": len(means),
                "refine_seconds": round(
                    statistics.mean(row["refine_seconds"] for row in chosen), 1
                ),
            }
        )
    return lines


def _samples(stage: Stage) -> int:
    assert stage.length.samples is not None
    return stage.length.samples


def _lasting(stage: Stage, samples: float) -> Stage:
    return stage.model_copy(update={"length": Length(samples=max(1, round(samples)))})


def _with_stages(recipe: Recipe, stages: list[Stage]) -> Recipe:
    return recipe.model_copy(update={"stages": stages})


def main() -> None:
    """Run every seed and write the table, whatever it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="share of the demo's samples")
    parser.add_argument("--per-task", type=int, default=150)
    parser.add_argument(
        "--processes", type=int, default=2, help="seeds run side by side, one thread each"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep what the last results hold, run what they lack"
    )
    parser.add_argument(
        "--target-towers", nargs="+", default=["frozen", "training"], choices=["frozen", "training"]
    )
    given = parser.parse_args()
    command = " ".join(["python benchmarks/gradual_vs_joint.py", *sys.argv[1:]])
    began, problems = time.perf_counter(), []
    rows = earlier(given) if given.resume else []
    had = {(row["seed"], row["way"]) for row in rows}
    names = list(ways(gradual(0, given.share)))
    wanted = [(seed, way) for seed in range(given.seeds) for way in names if (seed, way) not in had]
    with ProcessPoolExecutor(
        given.processes, mp_context=get_context("spawn"), initializer=follow_parent
    ) as pool:
        runs = [pool.submit(run_way, way, seed, given) for seed, way in wanted]
        # After every way, so that a long study that is cut short leaves what it found.
        for run in as_completed(runs):
            if error := run.exception():
                problems.append(str(error))
                continue
            rows += run.result()
            values = {"share": given.share, "table": table(rows), "rows": rows}
            publish(
                "gradual_vs_joint",
                command,
                {**values, "seconds": round(time.perf_counter() - began)},
            )
    if problems:
        raise SystemExit("\n".join(["some ways failed; run them with --resume:", *problems]))


if __name__ == "__main__":
    main()

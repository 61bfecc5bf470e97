"""The demo: refine the shipped base tower, train one model on the refined tower and one on the
base tower, and compare the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sailvit.api.evaluation import evaluate
from sailvit.api.models import load_run
from sailvit.api.running import train_claimed, train_new
from sailvit.api.screen import Screen
from sailvit.core.atomic import whole_file
from sailvit.core.errors import RunError
from sailvit.core.ownership import is_run, manifest_of
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder, read_lines, write_json
from sailvit.data.processing.images import data_uri, encoded, load_image
from sailvit.distributed.processes import my_device
from sailvit.evaluation.scores import Question, evaluation_json
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.suites.demo import WORLD, write_suite
from sailvit.evaluation.suites.evaluated import Asking
from sailvit.evaluation.suites.planning import plan_suite
from sailvit.evaluation.suites.tables import QuestionTable
from sailvit.evaluation.world import embedding_rows, held_out, image_features
from sailvit.models.measures.affinity import affinity
from sailvit.recipes.loader import load_recipe
from sailvit.report.page import write_report
from sailvit.synthetic.world.tasks import EVAL_TASKS
from sailvit.training.callbacks.claim import Claim, claimed
from sailvit.training.stages.precision import settled

QUICK = {"demo": (400, 400, 400), "demo-target": (300, 300)}
"""Samples per stage of the quick demo: enough to run every step, far too few to learn."""
_LABELS = {"base": "base tower", "refined": "refined tower"}
"""The compared models by their folders below `target`, with their names in the report."""
_CHILD = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1));"
    " runpy.run_module('sailvit', run_name='__main__', alter_sys=True)"
)
"""Run with `-I`, so that no file in the current folder is imported as a library, which `-m` alone
would do; `sys.path` is that of this process."""
_ASKING = Asking(style="bare", longest=32, batch=64)
"""The world's language knows its words only, and none of its answers has 32 tokens."""


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does."""

    quick: bool
    """Whether to shorten every stage."""
    per_task: int
    """Held-out questions per task."""

    def overrides(self, recipe: str) -> list[str]:
        """Overrides that shorten a recipe of the demo; none unless it is quick."""
        lengths = QUICK[recipe] if self.quick else ()
        return [f"stages.{index}.length.samples={samples}" for index, samples in enumerate(lengths)]


def run_demo(folder: RunFolder, size: DemoSize, seed: int, screen: Screen) -> dict[str, Any]:
    """Run the whole demo into `folder`; returns the summary, which summary.json holds too."""
    # A second thread gains little on models this small (56 against 60 ms a step), so the cores
    # are shared between two trainings instead.
    before, threads = torch.get_num_threads(), max(1, (os.cpu_count() or 2) // 2)
    refining = load_recipe("demo", [f"seed={seed}", *size.overrides("demo")])
    # Once for all three trainings: two that measured for themselves could differ, and then the
    # tower would not be all that base and refined differ in.
    refining = settled(refining, my_device())
    _refuse_other_run(folder, refining.name)
    with claimed(folder, "overwrite", len(refining.stages)) as claim:
        claim.begin()
        torch.set_num_threads(threads)
        try:
            return _run(DemoRun(folder, refining, claim, size, seed, threads), screen)
        finally:
            torch.set_num_threads(before)


def _refuse_other_run(folder: RunFolder, name: str) -> None:
    """RunError for a run that the demo did not write: a demo can be repeated, other work
    perhaps not.
    """
    if is_run(folder.path) and not (
        manifest_of(folder.path).get("name") == name and (folder.path / "target").is_dir()
    ):
        raise RunError(
            f"{folder.path} holds a run of recipe {manifest_of(folder.path).get('name')}, and"
            " the demo replaces none but its own; give another folder with --run"
        )


@dataclass(frozen=True)
class DemoRun:
    """One run of the demo."""

    folder: RunFolder
    """Folder of all that it writes."""
    refining: Recipe
    """The recipe of the refinement."""
    claim: Claim
    """The claim on the folder."""
    size: DemoSize
    """How much is done."""
    seed: int
    """Root of every random choice."""
    threads: int
    """Threads per training."""


def _run(demo: DemoRun, screen: Screen) -> dict[str, Any]:
    began = time.perf_counter()
    folder, size, seed, refining = demo.folder, demo.size, demo.seed, demo.refining
    target = [f"seed={seed + 1}", f"precision={refining.precision}", *size.overrides("demo-target")]
    beside = TrainingBeside(
        target, refining.model.tower, RunFolder(folder.path / "target" / "base"), demo.threads
    )
    with beside:
        screen.begin("refine the base tower in three stages")
        screen.say(f"(target training on the base tower runs beside it, into {beside.folder.path})")
        train_claimed(refining, folder, demo.claim, screen)
        # Before the minutes of the next training, which would be for nothing.
        beside.check()
        refined = folder.stage(len(refining.stages) - 1, refining.stages[-1].name) / "tower"
        screen.begin("target training on the refined tower, frozen")
        recipe = load_recipe("demo-target", [*target, f"model.tower={refined}"])
        train_new(recipe, RunFolder(folder.path / "target" / "refined"), screen)
        beside.wait()
    screen.begin("held-out questions")
    summary = compare(folder, size, seed)
    summary = {
        **summary,
        "seconds": round(time.perf_counter() - began, 1),
        "seed": seed,
        "quick": size.quick,
    }
    write_json(folder.summary, summary)
    _write_picture(folder, seed)
    write_report(folder)
    return summary


def _write_picture(folder: RunFolder, seed: int) -> None:
    """Write a held-out picture that the refined model can be asked about."""
    ((_, record),) = held_out(("shape",), 1, seed)
    with whole_file(folder.picture) as draft:
        draft.write_bytes(encoded(load_image(record.images[0])))


class TrainingBeside:
    """A process that does the target training on the base tower while the refinement, of which
    it needs nothing, goes on here.
    """

    def __init__(self, overrides: list[str], tower: str, folder: RunFolder, threads: int) -> None:
        self.folder = folder
        self._settings = [*overrides, f"model.tower={tower}"]
        self._threads = threads

    def __enter__(self) -> TrainingBeside:
        """Start the process; its output goes to `log`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path), "train"]
        command += ["demo-target", "--run", str(self.folder.path)]
        command += [word for setting in self._settings for word in ("--set", setting)]
        with self.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
            )
        return self

    def __exit__(self, *_: object) -> None:
        """End the process if it still runs."""
        # Also after an error or Ctrl-C here: it must not train on by itself.
        self._process.terminate()
        self._process.wait()

    @property
    def log(self) -> Path:
        """The file with the process's output, beside its run folder."""
        return self.folder.path.with_suffix(".log")

    def wait(self) -> None:
        """Wait for the end of the training; RunError where it failed."""
        self._process.wait()
        self.check()

    def check(self) -> None:
        """RunError where the training has failed already."""
        if self._process.poll() not in (None, 0):
            raise RunError(f"target training on the base tower failed; {self.log} says why")


def compare(folder: RunFolder, size: DemoSize, seed: int) -> dict[str, Any]:
    """Ask both models the same held-out questions, as `sailvit evaluate` does, measure how near
    their images lie to the language's embeddings, and write both to the run; returns the means
    and the gain.
    """
    tables = folder.answers / "demo"
    write_suite(tables, size.per_task, seed, [WORLD])
    plan = plan_suite("demo", tables, names=[WORLD.name])
    paths = {name: folder.path / "target" / name for name in _LABELS}
    made = evaluate(
        list(paths.values()), plan, folder.answers, Rules(), _ASKING, spreadsheets=False
    )
    files = {name: folder.answers / name / f"{name}_{WORLD.name}.jsonl" for name in paths}
    evaluation = evaluation_json(
        questions_of(plan.sets[0].table),
        {name: [line["prediction"] for line in read_lines(file)] for name, file in files.items()},
        {each.label: [a.credit == 1 for a in each.scores[WORLD.name].answers] for each in made},
        labels=_LABELS,
        seed=seed,
    )
    write_json(folder.evaluation, evaluation)
    write_json(folder.affinity, {"models": _places(paths, size, seed)})
    return _summary(evaluation)


def questions_of(table: QuestionTable) -> list[Question]:
    """A table's questions as the report shows them."""
    return [
        Question(
            task=row["category"],
            question=row["question"],
            answer=row["answer"],
            image=data_uri(load_image(table.images(place)[0])),
        )
        for place, row in enumerate(table.rows)
    ]


def _places(paths: Mapping[str, Path], size: DemoSize, seed: int) -> dict[str, Any]:
    """Where each model puts some of the pictures, beside the language's words."""
    records = [record for _, record in held_out(EVAL_TASKS, size.per_task, seed)]
    shown = records[:: max(1, len(records) // 400)]
    bundles = {name: load_run(path).bundle for name, path in paths.items()}
    return {
        name: affinity(image_features(bundle, shown), embedding_rows(bundle), seed=seed).to_json()
        for name, bundle in bundles.items()
    }


def _summary(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    base, refined = (evaluation["models"][name] for name in _LABELS)
    return {
        "base": base["mean"],
        "refined": refined["mean"],
        "gain": refined["mean"] - base["mean"],
        "interval": [evaluation["gain"]["low"], evaluation["gain"]["high"]],
        "tasks": {
            task: {"base": base["tasks"][task], "refined": refined["tasks"][task]}
            for task in EVAL_TASKS
        },
    }

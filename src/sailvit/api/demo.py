"""The demo: refine the shipped base tower, train one model on the refined tower and one on the
base tower, and compare the two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sailvit.api.beside import Beside, TrainingsBeside
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
from sailvit.recipes.loader import dump_recipe, load_recipe
from sailvit.report.page import write_report
from sailvit.synthetic.world.tasks import EVAL_TASKS
from sailvit.training.callbacks.claim import Claim, claimed
from sailvit.training.checks.judging import open_sources
from sailvit.training.stages.joining import joined
from sailvit.training.stages.precision import settled

QUICK = {"demo": (400, 400, 400), "demo-target": (300, 300)}
"""Samples per stage of the quick demo: enough to run every step, far too few to learn."""
LABELS = {
    "base": "base tower",
    "at-once": "refined all at once",
    "refined": "refined tower",
}
"""The models by their folders below `target`, with their names in tables and the report."""
_ASKING = Asking(style="bare", longest=32, batch=64)
"""The world's language knows its words only, and none of its answers has 32 tokens."""


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does."""

    quick: bool
    """Whether to shorten every stage."""
    per_task: int
    """Held-out questions per task."""
    compare: bool = False
    """Whether a tower that was refined all at once, on as many samples, is compared too."""

    @property
    def arms(self) -> dict[str, str]:
        """The compared models with their names."""
        return {name: label for name, label in LABELS.items() if self.compare or name != "at-once"}

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

    def target(self, name: str) -> RunFolder:
        """The run folder of a target training."""
        return RunFolder(self.folder.path / "target" / name)


def _run(demo: DemoRun, screen: Screen) -> dict[str, Any]:
    began = time.perf_counter()
    folder, refining = demo.folder, demo.refining
    trainings = _beside(demo)
    with TrainingsBeside(trainings, demo.threads) as beside:
        screen.begin("refine the base tower in three stages")
        screen.say(
            "beside it, in a process of its own: "
            + "; ".join(f"{each.what}, into {each.folder.path}" for each in trainings)
        )
        train_claimed(refining, folder, demo.claim, screen)
        # Before the minutes of the next training, which would be for nothing.
        beside.check()
        screen.begin("target training on the refined tower, frozen")
        settings = _target(demo, _refined(refining, folder))
        train_new(load_recipe("demo-target", settings), demo.target("refined"), screen)
        if trainings[1:]:
            screen.begin("wait for what runs beside")
        beside.wait()
    screen.begin("held-out questions")
    summary = compare(folder, demo.size, demo.seed)
    summary = {
        **summary,
        "seconds": round(time.perf_counter() - began, 1),
        "seed": demo.seed,
        "quick": demo.size.quick,
    }
    write_json(folder.summary, summary)
    _write_picture(folder, demo.seed)
    write_report(folder)
    return summary


def _beside(demo: DemoRun) -> list[Beside]:
    """What needs nothing of the refinement, in the order in which it is trained."""
    base = Beside(
        "target training on the base tower",
        "demo-target",
        _target(demo, demo.refining.model.tower),
        demo.target("base"),
    )
    if not demo.size.compare:
        return [base]
    recipe = joined(demo.refining, _sizes)
    folder = RunFolder(demo.folder.path / "at-once")
    text = folder.path.with_suffix(".yaml")
    with whole_file(text) as draft:
        draft.write_text(dump_recipe(recipe), encoding="utf-8")
    return [
        base,
        Beside("refinement of all parts at once", str(text), [], folder),
        Beside(
            "target training on that tower",
            "demo-target",
            _target(demo, _refined(recipe, folder)),
            demo.target("at-once"),
        ),
    ]


def _sizes(recipe: Recipe) -> dict[str, int]:
    """Records of every source of a recipe."""
    return {name: len(source) for name, source in open_sources(recipe).items()}


def _target(demo: DemoRun, tower: Path | str) -> list[str]:
    """Overrides of a target training: only the tower differs between two of them."""
    given = [f"seed={demo.seed + 1}", f"precision={demo.refining.precision}"]
    return [*given, *demo.size.overrides("demo-target"), f"model.tower={tower}"]


def _refined(recipe: Recipe, folder: RunFolder) -> Path:
    """The tower that a refinement leaves."""
    return folder.stage(len(recipe.stages) - 1, recipe.stages[-1].name) / "tower"


def _write_picture(folder: RunFolder, seed: int) -> None:
    """Write a held-out picture that the refined model can be asked about."""
    ((_, record),) = held_out(("shape",), 1, seed)
    with whole_file(folder.picture) as draft:
        draft.write_bytes(encoded(load_image(record.images[0])))


def compare(folder: RunFolder, size: DemoSize, seed: int) -> dict[str, Any]:
    """Ask all models the same held-out questions, as `sailvit evaluate` does, measure how near
    their images lie to the language's embeddings, and write both to the run; returns the means
    and the gain.
    """
    tables = folder.answers / "demo"
    write_suite(tables, size.per_task, seed, [WORLD])
    plan = plan_suite("demo", tables, names=[WORLD.name])
    paths = {name: folder.path / "target" / name for name in size.arms}
    made = evaluate(
        list(paths.values()), plan, folder.answers, Rules(), _ASKING, spreadsheets=False
    )
    files = {name: folder.answers / name / f"{name}_{WORLD.name}.jsonl" for name in paths}
    evaluation = evaluation_json(
        questions_of(plan.sets[0].table),
        {name: [line["prediction"] for line in read_lines(file)] for name, file in files.items()},
        {each.label: [a.credit == 1 for a in each.scores[WORLD.name].answers] for each in made},
        labels=size.arms,
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
    models = evaluation["models"]
    return {
        **{name: each["mean"] for name, each in models.items()},
        "gain": models["refined"]["mean"] - models["base"]["mean"],
        "interval": [evaluation["gain"]["low"], evaluation["gain"]["high"]],
        "tasks": {
            task: {name: each["tasks"][task] for name, each in models.items()}
            for task in EVAL_TASKS
        },
    }

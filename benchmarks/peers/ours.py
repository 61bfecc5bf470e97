"""Our own trainer as a contender."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from peers.watching import Outcome, Task, Watch, scratch
from sailvit.core.recipe import Recipe
from sailvit.core.records import Source
from sailvit.core.run import RunFolder
from sailvit.data.processing.collate import collate
from sailvit.data.processing.processor import Processor
from sailvit.data.sources import open_source
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.training.objectives.base import NextToken
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from sailvit.training.trainer import Trainer


class _Watching(Callback):
    """Hands steps to the watch."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._samples = 0

    def step_ended(self, job: StageRun, record: StepRecord) -> None:
        """Note the step."""
        self._watch.step(
            record.samples - self._samples, record.answer_tokens, record.loss["next_token"]
        )
        self._samples = record.samples


def recipe(task: Task) -> Recipe:
    """The stage as a recipe: steps of packs that hold as many samples as the peers' steps on average."""
    model = {name: str(task.model.part(name)) for name in ("tower", "language")}
    return Recipe.model_validate(
        {
            "name": "ours",
            "model": {**model, "connector": {"source": str(task.model.part("connector"))}},
            "sequence": round(task.samples * task.mean_tokens / task.packs),
            "sources": {
                "mixture": {
                    "format": "llava",
                    "path": str(task.files.llava),
                    "images": str(task.files.images),
                }
            },
            "stages": [
                {
                    "name": "stage",
                    "train": dict.fromkeys(task.trains, 1.0),
                    "data": ["mixture"],
                    "optim": {"lr": 1e-4, "weight_decay": 0.0},
                    "length": {"samples": task.steps * task.samples},
                    "global_batch": task.packs,
                    "micro_batch": 1,
                }
            ],
            "workers": task.workers,
            "proof_steps": min(2, task.warmup),
            "parallel": {"compile": task.compile},
        }
    )


def run(task: Task) -> Outcome:
    """Train the stage with our trainer."""
    quiet_libraries()
    torch.set_num_threads(task.threads)
    folder = scratch(task, "ours")
    shutil.rmtree(folder, ignore_errors=True)
    watch = Watch(task)
    Trainer(recipe(task), RunFolder(folder), callbacks=[_Watching(watch)]).run()
    return watch.outcome()


def mean_tokens(task: Task) -> float:
    """Tokens of a sample on average, visual ones included."""
    samples = _samples(task)
    return sum(len(samples.processor.draft("", record)) for record in samples.records) / len(
        samples.records
    )


def first_loss(task: Task) -> tuple[float, int]:
    """Mean loss of the first conversation in fp32, and its tokens with loss."""
    samples = _samples(task)
    batch = collate([[samples.processor("", samples.records[0])]])
    model = samples.bundle.mllm.eval()
    with torch.no_grad():
        loss = NextToken()(model, model(batch), batch)
    return float(loss) / batch.answer_tokens, batch.answer_tokens


@dataclass(frozen=True)
class _Samples:
    """The conversations and what turns them into samples."""

    bundle: ModelBundle
    processor: Processor
    records: Source


def _samples(task: Task) -> _Samples:
    made = recipe(task)
    bundle = build(made.model, seed=0)
    processor = Processor(bundle.tokenizer, bundle.layout, 1 << 20)
    return _Samples(bundle, processor, open_source("mixture", made.sources["mixture"], Path()))

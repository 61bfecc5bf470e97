"""Answers to the demo's held-out questions: batched by length, against one question at a time.

python benchmarks/generate.py RUN [--per-task 20] [--rounds 3]     (RUN: what `sailvit train demo` wrote)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from publish import publish, spread

from sailvit.api.models import load_run
from sailvit.core.records import Record
from sailvit.evaluation.world import held_out
from sailvit.inference.generation import Options
from sailvit.inference.model import RunModel
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.synthetic.world.tasks import EVAL_TASKS

LONGEST = 32
BATCH = 64


def timed(act: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """Seconds that it takes, and the answers."""
    began = time.perf_counter()
    found = act()
    return time.perf_counter() - began, found


def fresh(run: Path) -> RunModel:
    """The model without any kept visual tokens, its way of answering proved."""
    model = load_run(run, device="cpu")
    model.generate(None, "what is red ?", max_new_tokens=2)
    return model


def main() -> None:
    """Time both ways in turn, and compare their answers."""
    reader = argparse.ArgumentParser()
    reader.add_argument("run", type=Path)
    reader.add_argument("--per-task", type=int, default=20)
    reader.add_argument("--rounds", type=int, default=3)
    given = reader.parse_args()
    quiet_libraries()
    records: list[Record] = [record for _, record in held_out(EVAL_TASKS, given.per_task, 0)]
    options = Options(LONGEST)
    alone, batched, equal = [], [], []
    for _ in range(given.rounds):
        model = fresh(given.run)
        seconds, one = timed(
            lambda model=model: [model.answers([r], options, batch=1)[0] for r in records]
        )
        alone.append(len(records) / seconds)
        model = fresh(given.run)
        seconds, many = timed(lambda model=model: model.answers(records, options, batch=BATCH))
        batched.append(len(records) / seconds)
        equal.append(sum(a == b for a, b in zip(one, many, strict=True)))
        print(
            f"alone {alone[-1]:.1f}/s, batched {batched[-1]:.1f}/s, equal {equal[-1]}", flush=True
        )
    values = {
        "questions": len(records),
        "batch": BATCH,
        "max_new_tokens": LONGEST,
        "how": str(model.bundle.mllm.answering),
        "alone_per_second": spread(alone),
        "batched_per_second": spread(batched),
        "ratio": spread([b / a for a, b in zip(alone, batched, strict=True)]),
        "equal_answers": min(equal),
    }
    publish("generate", f"python benchmarks/generate.py RUN --per-task {given.per_task}", values)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""The demo's suite: questions in batches, as `sailvit evaluate` asks them, against one at a time.

python benchmarks/evaluate.py RUN [--questions 150] [--rounds 3]     (RUN: what `sailvit train` wrote)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from publish import publish, spread

from sailvit.api.models import load_run
from sailvit.core.records import Record
from sailvit.evaluation.suites.demo import write_suite
from sailvit.evaluation.suites.planning import PlannedSet, plan_suite
from sailvit.evaluation.suites.prompts import form_of, prompt_record
from sailvit.inference.generation import Options
from sailvit.models.loading.quiet import quiet_libraries

LONGEST = 256
BATCH = 16


def records(planned: PlannedSet) -> list[Record]:
    """The set's questions as they are asked, each prompt once."""
    table, form = planned.table, form_of(planned.questions.kind, "bare")
    made = {}
    for position, row in enumerate(table.cells):
        record = prompt_record(row, table.images(position), form)
        made.setdefault((record.turns[0].text, table.image_digest(position)), record)
    return list(made.values())


def answered(run: Path, asked: Sequence[Record], batch: int) -> tuple[float, list[str]]:
    """Processor seconds of the answers, and the answers."""
    model = load_run(run, device="cpu")
    # The way of answering is proved before the first answer, once.
    model.generate(None, "what is red ?", max_new_tokens=2)
    parts = [asked] if batch > 1 else [[record] for record in asked]
    # The processor's seconds, as other work on the machine does not count in them.
    began = time.process_time()
    found = [text for part in parts for text in model.answers(part, Options(LONGEST), batch=batch)]
    return time.process_time() - began, found


def main() -> None:
    """Time both ways in turn for every set, and compare their answers."""
    reader = argparse.ArgumentParser()
    reader.add_argument("run", type=Path)
    reader.add_argument("--questions", type=int, default=150)
    reader.add_argument("--rounds", type=int, default=3)
    given = reader.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        write_suite(Path(folder), given.questions)
        sets = {
            each.questions.name: records(each) for each in plan_suite("demo", Path(folder)).sets
        }
    whole, by_set, equal = [], {name: list[float]() for name in sets}, 0
    for _ in range(given.rounds):
        alone, together = 0.0, 0.0
        for name, asked in sets.items():
            one, texts = answered(given.run, asked, 1)
            many, same = answered(given.run, asked, BATCH)
            alone, together = alone + one, together + many
            by_set[name].append(one / many)
            equal += sum(a == b for a, b in zip(texts, same, strict=True))
            print(f"{name}: {len(asked)} questions, {one:.2f} s, {many:.2f} s", flush=True)
        whole.append(alone / together)
    values = {
        "questions": sum(map(len, sets.values())),
        "batch": BATCH,
        "max_new_tokens": LONGEST,
        "ratio": spread(whole),
        "ratio_by_set": {name: spread(found) for name, found in by_set.items()},
        "equal_answers": f"{equal} of {given.rounds * sum(map(len, sets.values()))}",
    }
    publish("evaluate", f"python benchmarks/evaluate.py RUN --questions {given.questions}", values)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

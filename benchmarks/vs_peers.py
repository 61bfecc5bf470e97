"""Useful tokens per second and peak memory of our trainer, TRL's SFTTrainer and transformers' Trainer, on the CPU.

    python benchmarks/vs_peers.py

The same small model (InternVL with a Qwen2 language), the same conversations and answer tokens, the same number of
samples per optimizer step, fp32 weights under bf16 autocast, three stages. Every contender runs every stage in a
process of its own, one after the other, in several rounds; figures are of steady steps. How many samples a peer takes
in one forward pass is tried out first, and it runs with what is fastest. Needs `pip install trl datasets accelerate`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from peers.contest import CONTENDERS, STAGES, compete, mean_tokens, row, same_start
from peers.data import write_data, write_tokenizer
from peers.model import SMALL, TINY, write_model
from peers.watching import Outcome, Task
from publish import publish


def alone(function: Callable[..., Any], *given: Any) -> Any:
    """What `function` returns in a fresh process, so that peaks and threads do not mix."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def prepare(folder: Path, given: argparse.Namespace) -> dict[str, Task]:
    """Data and model on disk, and the task of every stage."""
    shape = TINY if given.tiny else SMALL
    files = write_data(folder / "data", given.steps * given.samples)
    model = write_model(
        folder / "model", shape, write_tokenizer(folder / "tokenizer", shape.vocabulary)
    )
    tasks = {}
    for name, (trains, kind) in STAGES.items():
        task = Task(
            files=files[kind],
            model=model,
            trains=trains,
            samples=given.samples,
            steps=given.steps,
            warmup=given.steps // 4,
            micro=given.micro[0],
            packs=given.packs,
            workers=given.workers,
            threads=given.threads,
            compile=given.compile,
        )
        tasks[name] = dataclasses.replace(task, mean_tokens=alone(mean_tokens, task))
    return tasks


def fastest_micro(name: str, task: Task, tried: list[int]) -> tuple[int, dict[int, float]]:
    """Samples per forward pass with which a contender is fastest, and the answer tokens per second of each try."""
    if name == "ours":
        return task.micro, {}
    trial = dataclasses.replace(task, steps=5, warmup=1)
    rates = {
        micro: alone(compete, name, dataclasses.replace(trial, micro=micro)).rate for micro in tried
    }
    return max(rates, key=rates.__getitem__), {
        micro: round(rate, 1) for micro, rate in rates.items()
    }


def contest(task: Task, given: argparse.Namespace) -> dict[str, Any]:
    """One stage: every contender at its best, in turn."""
    micros = {name: fastest_micro(name, task, given.micro) for name in given.only}
    outcomes: dict[str, Outcome] = {}
    for _ in range(given.rounds):
        for name in given.only:
            found = alone(compete, name, dataclasses.replace(task, micro=micros[name][0]))
            print(name, found.values(), flush=True)
            outcomes[name] = outcomes[name].with_another(found) if name in outcomes else found
    return {
        **row(outcomes),
        "micro": {
            name: {"chosen": best, "tried": rates}
            for name, (best, rates) in micros.items()
            if rates
        },
    }


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", type=int, default=16, help="optimizer steps of a run; the first quarter warms up"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="runs of every contender in every stage"
    )
    parser.add_argument("--samples", type=int, default=16, help="samples per step")
    parser.add_argument(
        "--micro",
        type=int,
        nargs="+",
        default=[1, 4, 16],
        help="samples of a peer's forward pass, to try",
    )
    parser.add_argument(
        "--packs", type=int, default=1, help="packs of our step, each a forward pass"
    )
    parser.add_argument("--workers", type=int, default=1, help="loader processes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile, all contenders")
    parser.add_argument(
        "--tiny", action="store_true", help="a model that only shows that everything runs"
    )
    parser.add_argument(
        "--only", nargs="+", default=CONTENDERS, choices=CONTENDERS, help="run and print, no result"
    )
    parser.add_argument("--stages", nargs="+", type=int, default=[1, 2, 3])
    return parser.parse_args()


def main() -> None:
    """Run the contest and publish it, whatever it says."""
    given, began = options(), time.perf_counter()
    stages = {}
    with tempfile.TemporaryDirectory() as folder:
        tasks = prepare(Path(folder), given)
        start = alone(same_start, tasks["1 connector"])
        print("first loss", start)
        for name in [name for index, name in enumerate(STAGES, 1) if index in given.stages]:
            print(name)
            stages[name] = contest(tasks[name], given)
            print({key: value for key, value in stages[name].items() if "ratio" in key}, flush=True)
    if set(given.only) == set(CONTENDERS) and not given.tiny:
        settings = {key: value for key, value in vars(given).items() if key not in ("only", "tiny")}
        values = {
            "peers": {name: version(name) for name in ("trl", "accelerate", "datasets")},
            "settings": {**settings, "model": dataclasses.asdict(SMALL)},
            "mean_tokens": {name: round(task.mean_tokens, 1) for name, task in tasks.items()},
            "first_loss": start,
            "stages": stages,
            "seconds": round(time.perf_counter() - began),
        }
        publish("vs_peers", " ".join(["python benchmarks/vs_peers.py", *sys.argv[1:]]), values)


if __name__ == "__main__":
    main()

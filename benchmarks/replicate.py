"""Steps per second of replicas: gradients added up tensor by tensor afterwards, or by the engine.

python benchmarks/replicate.py
"""

import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from contrastive import job, steps
from publish import publish, spread

from sailvit.core.batch import Step
from sailvit.distributed.processes import gather_objects, process_group, rank, sum_counts, world
from sailvit.models.loading.build import build
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.recipes.loader import load_recipe
from sailvit.training.stages import micro_batch
from sailvit.training.stages.loop import train_step
from sailvit.training.stages.stage_run import StageRun

ROUNDS = 4
"""Rounds over both ways, of which the first is left out."""
SHARED = 4
"""Packs of a step, shared by the processes."""
TRAIN = {"train": {"tower": 1.0, "connector": 1.0, "language": 1.0}}
WAYS = {
    "next token": TRAIN | {"objectives": {"next_token": 1.0}},
    "with contrastive": TRAIN,
}
"""What trains: everything, so that as many gradients as possible are sent."""


class ByHand:
    """What the program did before: a sum per tensor when the backward pass is over."""

    def __init__(self, loss: Any, trained: list[torch.nn.Parameter]) -> None:
        self._loss = loss
        self.trained = trained

    def __call__(self, *given: Any, last: bool) -> Any:
        """The loss and its sums, with nothing sent."""
        del last
        return self._loss(*given)

    def add_up(self) -> None:
        """One collective for every weight that some process has a gradient for."""
        held = [int(p.grad is not None) for p in self.trained]
        for p, count in zip(self.trained, sum_counts(held, torch.device("cpu")), strict=True):
            if count:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                dist.all_reduce(p.grad)


def by_hand(ready: StageRun) -> None:
    """Let a job share gradients the old way."""
    trained = [p for group in ready.optimizer.param_groups for p in group["params"]]
    made = ByHand(micro_batch._loss, trained)
    ready.replicas = made  # type: ignore[assignment]
    # Before anything of a step looks at the gradients.
    ready.optimizer.register_step_pre_hook(lambda *_: made.add_up())


def measure() -> dict[str, Any]:
    """Steps per second of both ways, over the same steps in turn, and their ratio within rounds."""
    found: dict[str, Any] = {}
    for name, way in WAYS.items():
        whole = load_recipe("demo").model
        engine, hand = (job(build(whole, 0), way) for _ in range(2))
        by_hand(hand)
        share = SHARED // world()
        taken = [made[rank() * share : (rank() + 1) * share] for made in steps()]
        seconds: dict[str, list[float]] = {"by hand": [], "engine": []}
        for number in range(ROUNDS):
            for kind, ready in (("by hand", hand), ("engine", engine)):
                ready.model.train()
                dist.barrier()
                began = time.perf_counter()
                for batches in taken:
                    train_step(ready, Step(batches, {}), 0.0, 0.0)
                if number:
                    seconds[kind].append((time.perf_counter() - began) / len(taken))
        found[name] = {
            kind: spread([1 / each for each in times]) for kind, times in seconds.items()
        }
        pairs = zip(seconds["by hand"], seconds["engine"], strict=True)
        found[name]["engine / by hand"] = spread([hand / engine for hand, engine in pairs])
    return found


def as_process(index: int, count: int, port: int, path: str) -> None:
    """Measure as one of several processes."""
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    quiet_libraries()
    with process_group():
        found = gather_objects(measure())[0]
        if index == 0:
            torch.save(found, path)


def main() -> None:
    """Two processes, then four."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (2, 4):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            path = str(Path(folder) / f"{count}.pt")
            torch.multiprocessing.start_processes(
                as_process, (count, port, path), nprocs=count, start_method="fork"
            )
            results[f"{count} processes"] = torch.load(path)
            print(count, results[f"{count} processes"])
    publish(
        "replicate",
        "python benchmarks/replicate.py",
        {"precision": "fp32", "packs": SHARED, "rounds": ROUNDS - 1, "steps_per_s": results},
    )


if __name__ == "__main__":
    main()

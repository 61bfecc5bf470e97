"""Watching with two processes, replicated or sharded: the numbers of one, and weights that do not notice."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.core.batch import Step
from sailvit.core.recipe import PARTS, ParallelConfig
from sailvit.data.processing.collate import collate
from sailvit.data.processing.processor import Processor
from sailvit.distributed.processes import process_group, rank, world
from sailvit.distributed.sharding import whole
from sailvit.models.loading.build import build
from sailvit.models.structure.parallel import is_sharded, parallelize
from sailvit.training.callbacks.monitoring import MonitoringCallback, logged_values
from sailvit.training.monitoring.monitored import MonitoringData
from sailvit.training.stages.loop import run_stage
from tiny_parts import Parts, picture, record, samples
from tiny_runs import lines, stage, stage_run

STEPS = 4


def run(parts: Parts, folder: Path, mode: str, every: int | None) -> dict[str, Any]:
    """Some steps of a stage that trains everything, the second of them without any image; the final weights."""
    torch.set_num_threads(1)
    bundle = build(parts.config(), 0)
    parallelize(
        bundle.mllm,
        ParallelConfig.model_validate({"mode": mode}),
        torch.device("cpu"),
        bf16=False,
    )
    made = stage_run(
        bundle, stage(length={"samples": 10**3}), folder, monitoring={"every": every, "share": None}
    )
    processor = Processor(bundle.tokenizer, bundle.layout, 200)
    share = 2 // world()
    made.loader = [  # type: ignore[assignment]
        Step(
            tuple(
                collate(
                    [
                        [
                            processor(
                                "x",
                                record(
                                    f"{n}",
                                    *([picture(9 * n + step)] if step != 1 else []),
                                    answer="red",
                                ),
                            )
                        ]
                    ]
                )
                for n in range(rank() * share, (rank() + 1) * share)
            ),
            {},
        )
        for step in range(STEPS)
    ]
    # Seven tiles and five texts do not come out even on two processes.
    tiles = torch.cat(
        [sample.tiles for sample in samples(bundle, [record(str(n), picture(n)) for n in range(7)])]
    )
    texts = tuple(samples(bundle, [record(f"{n}", answer="blue " * 12) for n in range(5)]))
    run_stage(made, [MonitoringCallback(lambda: MonitoringData(tiles, texts, "records"))])
    held = {
        f"{part}/{n}": p for part in PARTS for n, p in bundle.mllm.part(part).named_parameters()
    }
    return {
        "sharded": is_sharded(bundle.mllm),
        "weights": {n: whole(p).clone() for n, p in held.items()},
    }


def as_process(index: int, port: int, folder: Path, parts: Parts, mode: str) -> None:
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with process_group():
        result = run(parts, folder, mode, 1), run(parts, folder, mode, None)
        if index == 0:
            torch.save(result, folder / "result.pt")


@pytest.fixture(scope="module")
def alone(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone")
    run(parts, folder, "replicate", 1)
    return lines(folder / "monitoring.jsonl")


@pytest.mark.parametrize("mode", ["replicate", "shard"])
def test_two_processes_see_what_one_sees(
    mode: str, parts: Parts, alone: list[dict[str, Any]], tmp_path: Path
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        as_process, (port, tmp_path, parts, mode), nprocs=2, start_method="fork"
    )
    looked, plain = torch.load(tmp_path / "result.pt")
    assert looked["sharded"] is (mode == "shard")
    assert not [
        name
        for name, weight in plain["weights"].items()
        if not torch.equal(weight, looked["weights"][name])
    ]
    found = lines(tmp_path / "monitoring.jsonl")
    assert (
        [line["step"] for line in found]
        == [line["step"] for line in alone]
        == list(range(STEPS + 1))
    )
    for ours, expected in zip(found, alone, strict=True):
        assert logged_values(ours).keys() == logged_values(expected).keys()
        for name, value in logged_values(ours).items():
            if name not in ("monitoring/seconds", "monitoring/share"):
                assert value == pytest.approx(logged_values(expected)[name], rel=2e-3, abs=1e-5), (
                    name
                )

"""One process equals two, replicated or sharded: same losses, same weights, whoever gets the images."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.core.batch import Batch, Step
from sailvit.core.recipe import PARTS, ParallelConfig
from sailvit.core.records import Sample
from sailvit.data.processing.collate import collate
from sailvit.data.processing.processor import Processor
from sailvit.distributed.processes import process_group, rank, world
from sailvit.distributed.sharding import whole
from sailvit.models.loading.build import build
from sailvit.models.structure.parallel import is_sharded, parallelize
from sailvit.training.stages.loop import train_step
from tiny_parts import Parts, picture, record
from tiny_runs import stage_run, three_stages

STEPS = 20
RESULT = dict[str, Any]


def packs(processor: Processor, step: int) -> list[list[Sample]]:
    """Four packs: two with images, two of text alone; dealt so that one of two processes sees no image."""
    shown = [
        [record(f"a caption {step}", picture(step), kind="caption"), record(f"words {step}")],
        [
            record("two of them", picture(step + 1), picture(step + 2)),
            record("red", picture(step), kind="caption"),
        ],
    ]
    plain = [[record(f"text {step} {n} " * (n + 1)) for n in range(3)] for _ in range(2)]
    return [[processor("data", each) for each in pack] for pack in (*shown, *plain)]


def steps(processor: Processor) -> list[tuple[Batch, ...]]:
    """This process's micro-batches of every step."""
    share = 4 // world()
    mine = slice(rank() * share, (rank() + 1) * share)
    return [
        tuple(collate([pack]) for pack in packs(processor, step)[mine]) for step in range(STEPS)
    ]


def run(parts: Parts, config: ParallelConfig, precision: str = "fp32") -> RESULT:
    """Losses, gradient norms and final weights of the steps of each of three stages.

    In fp32 each starts from the same weights; in bf16 each goes on with the model of the one before, as in a run.
    """
    torch.set_num_threads(1)
    result: RESULT = {"loss": [], "norm": [], "weights": {}}
    for number, values in enumerate(three_stages()):
        if precision == "fp32" or number == 0:
            bundle = build(parts.config(), 0)
            parallelize(bundle.mllm, config, torch.device("cpu"), bf16=precision == "bf16")
            bundle.mllm.train()
        settings = {
            **values,
            "length": {"samples": 10**4},
            "schedule": {"name": "constant", "warmup": 0},
        }
        made = stage_run(bundle, settings, precision=precision, parallel=config.model_dump())
        for batches in steps(Processor(bundle.tokenizer, bundle.layout, 200)):
            line = train_step(made, Step(batches, {}), 0.0, 0.0)
            result["loss"].append(list(line.loss.values()))
            result["norm"].append(line.grad_norm)
        for part in PARTS:
            for name, weight in bundle.mllm.part(part).named_parameters():
                result["weights"][f"{values['name']}/{part}/{name}"] = whole(weight).clone()
    result["sharded"] = is_sharded(bundle.mllm)
    return result


def as_process(
    index: int,
    count: int,
    port: int,
    folder: str,
    parts: Parts,
    config: ParallelConfig,
    precision: str,
) -> None:
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    added: list[torch.dtype] = []
    # Its name before torch 2.13 and since.
    for name in ("reduce_scatter_tensor", "reduce_scatter_single"):
        if reduce := getattr(torch.distributed, name, None):
            setattr(torch.distributed, name, _noting(reduce, added))
    with process_group():
        result = {**run(parts, config, precision), "added in": added}
        if index == 0:
            torch.save(result, Path(folder) / "result.pt")


def _noting(reduce: Callable[..., Any], added: list[torch.dtype]) -> Callable[..., Any]:
    """The same, noting in which precision it adds."""

    def noted(output: torch.Tensor, input: torch.Tensor, **options: Any) -> Any:
        added.append(input.dtype)
        return reduce(output, input, **options)

    return noted


def together(
    count: int, folder: Path, parts: Parts, config: ParallelConfig, precision: str = "fp32"
) -> RESULT:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (count, port, str(folder), parts, config, precision)
    torch.multiprocessing.start_processes(as_process, given, nprocs=count, start_method="fork")
    result: RESULT = torch.load(folder / "result.pt")
    return result


@pytest.fixture(scope="module")
def alone(parts: Parts) -> RESULT:
    return run(parts, ParallelConfig())


def compare(found: RESULT, alone: RESULT) -> None:
    assert len(found["loss"]) == 3 * STEPS
    for ours, expected in zip(found["loss"], alone["loss"], strict=True):
        assert ours == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert found["norm"] == pytest.approx(alone["norm"], rel=1e-3)
    for name, weight in alone["weights"].items():
        # A key's bias shifts all scores of a query alike: its gradient is rounding, which Adam scales to a step.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(
                found["weights"][name], weight, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize(
    ("mode", "reduce"),
    [
        ("replicate", "each"),
        ("shard", "each"),
        pytest.param("shard", "last", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one_in_all_three_stages(
    mode: str, reduce: str, parts: Parts, alone: RESULT, tmp_path: Path
):
    """Each process has two micro-batches; of shards, `last` adds gradients up half as often."""
    config = ParallelConfig.model_validate({"mode": mode, "reduce": reduce})
    found = together(2, tmp_path, parts, config)
    assert found["sharded"] is (mode == "shard")
    compare(found, alone)
    # The rest as one unit in every stage, two blocks of the tower in two, of the language in one.
    units = 1 + 3 + 5
    passes = {"replicate": 0, "each": 2, "last": 1}[reduce if mode == "shard" else mode]
    assert len(found["added in"]) == STEPS * units * passes


@pytest.mark.slow
def test_two_processes_follow_one_in_bf16_when_a_later_stage_trains_what_was_frozen(
    parts: Parts, tmp_path: Path
):
    one = run(parts, ParallelConfig(), "bf16")
    found = together(2, tmp_path, parts, ParallelConfig(mode="shard"), "bf16")
    assert len(found["loss"]) == 3 * STEPS
    for begin in range(0, 3 * STEPS, STEPS):
        ours, expected = (
            [sum(each) for each in result["loss"][begin : begin + STEPS]] for result in (found, one)
        )
        assert ours[0] == pytest.approx(expected[0], rel=0.02)
        assert sum(ours) == pytest.approx(sum(expected), rel=0.02)
    assert set(found["added in"]) == {torch.float32}


@pytest.mark.slow
def test_four_processes_in_groups_of_two_equal_one(parts: Parts, alone: RESULT, tmp_path: Path):
    compare(together(4, tmp_path, parts, ParallelConfig(mode="hybrid", group=2)), alone)

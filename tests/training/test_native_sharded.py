"""Native resolution in shards: processes with other grids, and one without images, train as one does."""

from __future__ import annotations

from pathlib import Path

import torch

from sailvit.core.batch import Batch, Step
from sailvit.core.recipe import PARTS, ParallelConfig
from sailvit.data.processing.collate import collate
from sailvit.data.processing.processor import Processor
from sailvit.distributed.processes import rank, world
from sailvit.distributed.sharding import whole
from sailvit.models.loading.build import build
from sailvit.models.structure.parallel import parallelize
from sailvit.training.stages.loop import train_step
from tiny_parts import Parts, picture, record
from tiny_runs import stage, stage_run
from two_processes import in_two

STEPS = 4


def packs(processor: Processor, step: int) -> list[Batch]:
    """Two packs: images of three grids, and one other or none."""
    many = [record("many", picture(step, 90, 20), picture(1, 20, 60), picture(2, 33, 33))]
    few = [record("few", picture(3, 200, 16))] if step % 2 else [record("text", answer="blue")]
    return [collate([[processor("data", each) for each in pack]]) for pack in (many, few)]


def trained(parts: Parts, config: ParallelConfig) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    bundle = build(parts.config("siglip", image={"mode": "native", "max_patches": 64}), 0)
    parallelize(bundle.mllm, config, torch.device("cpu"), bf16=False)
    bundle.mllm.train()
    settings = stage(length={"samples": 10**4}, schedule={"name": "constant", "warmup": 0})
    made = stage_run(bundle, settings, parallel=config.model_dump())
    processor, share = Processor(bundle.tokenizer, bundle.layout, 200), 2 // world()
    mine = slice(rank() * share, (rank() + 1) * share)
    for step in range(STEPS):
        train_step(made, Step(tuple(packs(processor, step)[mine]), {}), 0.0, 0.0)
    return {
        f"{part}/{name}": whole(weight).clone()
        for part in PARTS
        for name, weight in bundle.mllm.part(part).named_parameters()
    }


def test_two_processes_with_other_grids_equal_one(parts: Parts, tmp_path: Path):
    config = parts.config("siglip")  # saved here, as both processes would write it
    assert config.tower
    expected = trained(parts, ParallelConfig())

    def work(index: int) -> None:
        found = trained(parts, ParallelConfig(mode="shard"))
        if index == 0:
            torch.save(found, tmp_path / "found.pt")

    assert in_two(tmp_path, work) == ["done", "done"]
    found = torch.load(tmp_path / "found.pt")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        # A key's bias has a gradient of rounding alone, which Adam scales to a step.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-5)

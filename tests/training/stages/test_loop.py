"""The loop: exact accumulation, exact over processes, and what a step reports."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sailvit.core.batch import Batch, Step
from sailvit.core.records import Sample
from sailvit.data.processing.collate import collate
from sailvit.distributed.processes import rank
from sailvit.training.stages.loop import _global_counts, accumulate, run_stage, train_step
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts, captions, mixed_records, record, samples
from tiny_runs import OPTIM, Record, stage, stage_run

BOTH = {"next_token": 1.0, "contrastive": 0.3}
TEXTS = ["a red circle", "blue square", "a red circle", "large"]


@pytest.fixture
def made(parts: Parts) -> list[Sample]:
    """Eight samples: no image, one, two, and four captions of which two are equal."""
    return samples(parts.build(), [*mixed_records(), *captions(TEXTS)])


def batches(made: list[Sample], size: int) -> tuple[Batch, ...]:
    """Micro-batches of `size` packs with one sample each."""
    return tuple(
        collate([[sample] for sample in made[at : at + size]]) for at in range(0, len(made), size)
    )


def plain_step(
    parts: Parts, micro: tuple[Batch, ...], **changes: object
) -> tuple[StageRun, StepRecord, dict]:
    """One step of plain descent, so that weights move by the gradient; returns what each weight moved by."""
    settings = stage(
        objectives=BOTH,
        train={"connector": 1, "tower": 1, "language": 1},
        optim=OPTIM | {"clip": None},
    )
    ready = stage_run(parts.build(), {**settings, **changes})
    modules = {"model": ready.model, **ready.objectives}
    with torch.no_grad():
        ready.objectives["contrastive"].bias.fill_(-1.0)
    named = {
        f"{owner}.{n}": p for owner, module in modules.items() for n, p in module.named_parameters()
    }
    before = {name: p.detach().clone() for name, p in named.items()}
    groups = [{**group, "lr": 1.0} for group in ready.optimizer.param_groups]
    ready.optimizer = torch.optim.SGD(
        [{key: g[key] for key in ("params", "part", "share")} for g in groups], lr=1.0
    )
    now = time.perf_counter()
    done = train_step(ready, Step(micro, {"at": 1}), now, now)
    rate = next(iter(done.lr.values()))
    return ready, done, {name: (before[name] - p.detach()) / rate for name, p in named.items()}


def test_one_by_eight_equals_eight_by_one(parts: Parts, made: list[Sample]):
    fast = {"optim": {"lr": 1.0, "clip": None}, "schedule": {"name": "constant", "warmup": 0}}
    _, whole, expected = plain_step(parts, batches(made, 8), **fast)
    moved = {name for name, tensor in expected.items() if tensor.abs().max() > 1e-6}
    assert {"contrastive.bias", "contrastive.log_scale"} < moved
    for size in (1, 2, 4):
        _, split, found = plain_step(parts, batches(made, size), **fast)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, msg=name)
        assert split.loss == pytest.approx(whole.loss, rel=1e-5)
        assert split.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
        assert (split.tokens, split.answer_tokens, split.images) == (
            whole.tokens,
            whole.answer_tokens,
            whole.images,
        )


def test_the_loss_is_the_mean_over_answer_tokens(parts: Parts, made: list[Sample]):
    ready, done, _ = plain_step(parts, batches(made, 3))
    model = parts.build().mllm
    total = count = 0.0
    for batch in batches(made, 1):
        labels = batch.labels[batch.labels >= 0]
        total -= float(
            model(batch).logits.log_softmax(-1)[torch.arange(len(labels)), labels].sum().detach()
        )
        count += len(labels)
    assert done.loss["next_token"] == pytest.approx(total / count, rel=1e-5)
    assert done.answer_tokens == count
    assert done.samples == len(done.loss) * 4 == len(made)
    assert ready.cursor == {"at": 1}


def test_a_step_reports_itself(parts: Parts, made: list[Sample]):
    ready, done, _ = plain_step(parts, batches(made, 2))
    real = sum(len(sample.tokens) for sample in made)
    held = sum(batch.tokens.numel() for batch in batches(made, 2))
    assert (done.step, done.tokens, done.images) == (1, real, sum(len(s.tiles) for s in made))
    assert done.done == ready.share_done(len(made), real) > 0
    assert done.padding == pytest.approx(1 - real / held)
    assert done.seconds > 0
    assert done.mfu > 0
    assert done.samples_per_s == pytest.approx(len(made) / done.seconds)
    assert (ready.step, ready.samples, ready.tokens, ready.seconds) == (
        1,
        len(made),
        real,
        done.seconds,
    )


def test_clipping_bounds_the_step_and_reports_the_norm_before_it(parts: Parts, made: list[Sample]):
    fast = {"schedule": {"name": "constant", "warmup": 0}}
    _, free, moved = plain_step(parts, batches(made, 8), optim={"lr": 1.0, "clip": None}, **fast)
    _, held, clipped = plain_step(parts, batches(made, 8), optim={"lr": 1.0, "clip": 0.1}, **fast)
    assert held.grad_norm == pytest.approx(free.grad_norm, rel=1e-5)
    norms = [
        sum(float(t.square().sum()) for t in tensors.values()) ** 0.5
        for tensors in (moved, clipped)
    ]
    assert norms == pytest.approx([free.grad_norm, 0.1], rel=1e-3)


def test_bf16_is_near_fp32(parts: Parts, made: list[Sample]):
    losses = {}
    for precision in ("fp32", "bf16"):
        ready = stage_run(parts.build(), stage(objectives=BOTH), precision=precision)
        losses[precision] = train_step(ready, Step(batches(made, 4), {}), 0.0, 0.0).loss
        assert {p.dtype for p in ready.model.parameters()} == {torch.float32}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)
    assert losses["bf16"] != losses["fp32"]


def two_processes(index: int, folder: str, parts: Parts, shares: list[list[list[Sample]]]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/join", rank=index, world_size=2
    )
    assert rank() == index
    micro = tuple(collate([[sample] for sample in pack]) for pack in shares[index])
    fast = {"optim": {"lr": 1.0, "clip": 1.0}, "schedule": {"name": "constant", "warmup": 0}}
    _, done, moved = plain_step(parts, micro, **fast)
    torch.save((done.loss, done.grad_norm, done.tokens, done.images, moved), f"{folder}/{index}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "shares",
    [
        [[[0, 1, 2, 3]], [[4, 5, 6, 7]]],
        [[[1, 2], [3, 4, 5, 6, 7]], [[0], [0]]],
        [[[0], [0]], [[0], [0]]],
    ],
    ids=["unequal images", "a rank without images", "no image at all"],
)
def test_two_processes_equal_one(parts: Parts, tmp_path: Path, made: list[Sample], shares: list):
    parts.build()
    dealt = [[[made[index] for index in pack] for pack in share] for share in shares]
    torch.multiprocessing.start_processes(
        two_processes, (str(tmp_path), parts, dealt), nprocs=2, join=True, start_method="fork"
    )
    micro = tuple(collate([[sample] for sample in pack]) for share in dealt for pack in share)
    fast = {"optim": {"lr": 1.0, "clip": 1.0}, "schedule": {"name": "constant", "warmup": 0}}
    _, done, expected = plain_step(parts, micro, **fast)
    for index in range(2):
        loss, norm, tokens, images, moved = torch.load(tmp_path / f"{index}.pt")
        assert (tokens, images) == (done.tokens, done.images)
        assert loss == pytest.approx(done.loss, rel=1e-5)
        assert norm == pytest.approx(done.grad_norm, rel=1e-5)
        for name, tensor in expected.items():
            torch.testing.assert_close(moved[name], tensor, rtol=1e-5, atol=1e-5, msg=name)


def two_steps(index: int, folder: str, parts: Parts, made: list[Sample]) -> None:
    """A step with images, then one that has none on any process; keeps the tower before and after the second."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/join", rank=index, world_size=2
    )
    ready = stage_run(parts.build(), stage(schedule={"name": "constant", "warmup": 0}))
    towers = []
    for share in made[1:3], [made[0], made[0]]:
        train_step(ready, Step((collate([[share[index]]]),), {}), 0.0, 0.0)
        towers.append(
            ready.model.tower.model.state_dict()["encoder.layers.0.mlp.fc1.weight"].clone()
        )
    torch.save(towers, f"{folder}/{index}.pt")
    torch.distributed.destroy_process_group()


def test_a_tower_without_images_on_any_process_rests(
    parts: Parts, tmp_path: Path, made: list[Sample]
):
    """As it does with one process; with gradients of zero it would go on with its momentum and decay."""
    before = parts.build().mllm.tower.model.state_dict()["encoder.layers.0.mlp.fc1.weight"]
    torch.multiprocessing.start_processes(
        two_steps, (str(tmp_path), parts, made), nprocs=2, join=True, start_method="fork"
    )
    (one, two), (other, _) = torch.load(tmp_path / "0.pt"), torch.load(tmp_path / "1.pt")
    assert torch.equal(one, other)
    assert not torch.equal(before, one)
    assert torch.equal(one, two)


def test_hooks_see_every_moment_and_can_stop(parts: Parts, made: list[Sample]):
    ready = stage_run(parts.build(), stage("short"))
    ready.loader = [Step(batches(made[:2], 2), {"at": n}) for n in range(5)]  # type: ignore[assignment]

    class Stop(Record):
        def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
            super().step_ended(stage_run, record)
            stage_run.stop = record.step == 3

    callbacks = [Stop(), Record()]
    run_stage(ready, callbacks)
    for callback in callbacks:
        assert callback.moments == ["started short", "ended short"]
        assert [record.step for record in callback.records] == [1, 2, 3]
    assert ready.cursor == {"at": 2}


@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (10**9, 4)])
def test_a_length_in_tokens_ends_with_the_step_that_reaches_it(
    parts: Parts, made: list[Sample], tokens: int, steps: int
):
    ready = stage_run(parts.build(), stage(length={"tokens": tokens}))
    ready.loader = [Step(batches(made[:2], 2), {})] * 4  # type: ignore[assignment]
    run_stage(ready, [])
    assert ready.step == steps
    if tokens == 1:
        run_stage(ready, [])
        assert ready.step == steps, "a stage that is done, as after a resume, takes no further step"


def test_a_batch_without_answers_and_images_does_no_harm(parts: Parts):
    """As on a rank whose packs are empty when the data end."""
    bundle = parts.build()
    ready = stage_run(bundle, stage(train={"connector": 1.0}))
    before = {n: p.detach().clone() for n, p in bundle.mllm.named_parameters()}
    done = train_step(
        ready, Step((collate([[]]), collate([samples(bundle, [record("text")])])), {}), 0.0, 0.0
    )
    assert done.grad_norm == 0.0
    assert all(torch.equal(before[n], p) for n, p in bundle.mllm.named_parameters())


class Casts(TorchDispatchMode):
    """Counts, by where a tensor lies, how often it was made bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            self.counts[args[0].data_ptr()] += 1
        return function(*args, **kwargs)


def test_weights_are_cast_once_for_all_micro_batches(parts: Parts, made: list[Sample]):
    settings = stage(objectives=BOTH, train={"connector": 1, "tower": 1, "language": 1})
    ready = stage_run(parts.build(), settings, precision="bf16")
    micro = batches(made, 2)
    counts = _global_counts(ready, micro)
    ready.objectives.pop("contrastive")
    with Casts() as casts:
        accumulate(ready, micro, counts)
    matrices = {
        name: casts.counts[p.data_ptr()]
        for name, p in ready.model.named_parameters()
        if p.requires_grad and name.endswith(("_proj.weight", "fc1.weight", "up.weight"))
    }
    assert len(matrices) > 10
    assert {name: count for name, count in matrices.items() if count != 1} == {}


def test_a_pass_without_a_graph_leaves_no_weight_without_gradient(parts: Parts, made: list[Sample]):
    """What it cast weights to has no graph; used again in training, it would swallow their gradients."""
    settings = stage(objectives=BOTH, train={"connector": 1, "tower": 1, "language": 1})
    gradients = {}
    for precision in ("fp32", "bf16"):
        ready = stage_run(parts.build(), settings, precision=precision)
        micro = batches(made, 2)
        accumulate(ready, micro, _global_counts(ready, micro))
        gradients[precision] = {
            n: p.grad for n, p in ready.model.named_parameters() if p.grad is not None
        }
    assert gradients["fp32"].keys() == gradients["bf16"].keys()
    # A key's bias has a gradient of rounding alone: what it adds to all scores of a row, softmax takes away.
    for name, exact in {
        n: g for n, g in gradients["fp32"].items() if not n.endswith("k_proj.bias")
    }.items():
        assert (gradients["bf16"][name] - exact).norm() <= 0.1 * exact.norm() + 1e-5, name

"""The prototype objective against a reference in plain exponentials, in value and in gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from sailvit.core.batch import Batch
from sailvit.core.errors import ModelError
from sailvit.data.processing.collate import collate
from sailvit.distributed.sharding import make_mesh, whole
from sailvit.models.loading.build import ModelBundle
from sailvit.models.structure.mllm import MLLM, Activations
from sailvit.models.structure.parallel import shard
from sailvit.training.objectives.prototype import TEMPERATURE, Prototype, balanced
from tiny_parts import Parts, captions, record, samples

TEXTS = ["a red circle", "blue square", "a red circle", "large", "two green bars"]


@pytest.fixture
def bundle(parts: Parts) -> ModelBundle:
    return parts.build()


def naive(model: MLLM, batch: Batch) -> torch.Tensor:
    """Sinkhorn by exponentials in float64, which holds e^400, and a cross-entropy by loops."""
    words = normalize(model.language.get_output_embeddings().weight.detach().double(), dim=-1)
    visual, images, texts = model.visual(batch.tiles), [], []
    for index in range(batch.captioned_images):
        tokens = batch.tokens[batch.caption_of == index]
        texts.append(model.language.get_input_embeddings()(tokens).mean(dim=0).detach().double())
        images.append(visual[batch.image_of_tile == index].mean(dim=(0, 1)).double())
    shares = (normalize(torch.stack(texts), dim=-1) @ words.T / TEMPERATURE).exp()
    for _ in range(3):
        shares = shares / shares.sum(dim=0)
        shares = shares / shares.sum(dim=1, keepdim=True)
    total = torch.zeros((), dtype=torch.float64)
    for image, target in zip(images, shares, strict=True):
        scores = words @ (image / image.norm()) / TEMPERATURE
        total = total - (target * (scores - scores.logsumexp(dim=0))).sum()
    return total.float()


def gradients(model: MLLM) -> dict[str, torch.Tensor]:
    found = {n: whole(p.grad).clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    # Of keys' biases the gradient is zero but for rounding, so that the largest is the scale.
    scale = max(float(tensor.abs().max()) for tensor in expected.values())
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("sizes", [(5,), (1, 4), (2, 2, 1), (0, 5)])
def test_it_equals_the_reference_however_a_step_is_cut(bundle: ModelBundle, sizes):
    """Also where a micro-batch holds no caption; and the language has no part in it."""
    model, objective = bundle.mllm, Prototype()
    made = samples(bundle, captions(TEXTS))
    expected = naive(model, collate([made]))
    expected.backward()
    wanted = gradients(model)
    left, batches = list(made), []
    for size in sizes:
        own, left = left[:size], left[size:]
        batches.append(collate([own or samples(bundle, [record("text")])]))
    objective.prepare(model, batches)
    found = sum(objective(model, model(batch, logits=False), batch) for batch in batches)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    found.backward()
    parts = {name.partition(".")[0] for name in wanted}
    assert parts == {"tower", "connector"}
    assert_close(gradients(model), wanted)
    assert sum(objective.units(batch) for batch in batches) == len(TEXTS)
    assert not list(objective.parameters()) + list(objective.state_dict())


def as_process(index: int, folder: str, parts: Parts, sharded: bool) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/join", rank=index, world_size=2
    )
    bundle, objective = parts.build(), Prototype()
    if sharded:
        shard(bundle.mllm, make_mesh("cpu", "shard", None), bf16=False, offload=False)
    made = samples(bundle, captions(TEXTS))
    batch = collate([made[:2] if index == 0 else made[2:]])
    objective.prepare(bundle.mllm, [batch])
    found = objective(bundle.mllm, bundle.mllm(batch, logits=False), batch)
    found.backward()
    torch.save((found.detach(), gradients(bundle.mllm)), f"{folder}/{index}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_give_the_sum_and_the_gradient_of_one(
    parts: Parts, bundle: ModelBundle, tmp_path: Path, sharded
):
    expected = naive(bundle.mllm, collate([samples(bundle, captions(TEXTS))]))
    expected.backward()
    wanted = gradients(bundle.mllm)
    torch.multiprocessing.start_processes(
        as_process, (str(tmp_path), parts, sharded), nprocs=2, start_method="fork"
    )
    (one, own), (other, theirs) = (torch.load(tmp_path / f"{index}.pt") for index in range(2))
    torch.testing.assert_close(one + other, expected.detach(), rtol=1e-4, atol=1e-3)
    # A sharded model has summed them already; its other parts' are zeros.
    total = own if sharded else {name: own[name] + theirs[name] for name in own}
    idle = {name for name in total if name not in wanted}
    assert all(not total.pop(name).any() for name in idle)
    assert_close(total, wanted)


def test_the_assignment_is_balanced():
    scores = 20 * torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    few, many = balanced(scores), balanced(scores, rounds=2000)
    for shares in (few, many):
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(6))
    torch.testing.assert_close(many.sum(dim=0), torch.full((10,), 0.6), rtol=1e-2, atol=1e-2)
    apart = [(each.sum(dim=0) - 0.6).abs().max() for each in (scores.softmax(1), few, many)]
    assert apart[0] > apart[1] > apart[2]
    assert balanced(scores[:0]).shape == (0, 10)


def test_a_word_far_from_all_captions_gives_numbers():
    """At e^-400 a plain exponential is zero, and its column's sum too."""
    scores = torch.tensor([[200.0, -200.0], [190.0, -200.0]])
    assert balanced(scores).isfinite().all()


def test_it_falls_when_images_tell_their_captions_words(bundle: ModelBundle):
    model, objective = bundle.mllm, Prototype()
    batch = collate([samples(bundle, captions(["red", "blue square", "large"]))])
    objective.prepare(model, [batch])
    nearest = objective._targets @ objective._prototypes

    def loss(order: list[int]) -> float:
        objective.prepare(model, [batch])
        visual = nearest[order][:, None].expand(-1, 4, -1)
        return objective(model, Activations(visual, None), batch).item()

    assert loss([0, 1, 2]) < loss([1, 2, 0])


def test_autocast_does_not_round_its_cosines(bundle: ModelBundle):
    model, objective = bundle.mllm, Prototype()
    batch = collate([samples(bundle, captions(TEXTS))])
    seen = model(batch, logits=False)
    values = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            objective.prepare(model, [batch])
            values.append(objective(model, seen, batch).item())
    assert values[1] == pytest.approx(values[0], rel=1e-6)


def test_a_language_without_a_head_is_refused_by_name(bundle: ModelBundle, monkeypatch):
    batch = collate([samples(bundle, captions(TEXTS))])
    monkeypatch.setattr(bundle.mllm.language, "get_output_embeddings", lambda: None)
    with pytest.raises(ModelError, match=r"the objective prototype reads .* found none"):
        Prototype().prepare(bundle.mllm, [batch])

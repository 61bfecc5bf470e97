"""Recompute and compile change what a step costs, not what it computes."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sailvit.core.batch import Batch
from sailvit.core.errors import RecipeError
from sailvit.core.recipe import ParallelConfig
from sailvit.data.processing.collate import collate
from sailvit.models.loading.build import ModelBundle
from sailvit.models.structure.parallel import is_sharded, parallelize
from tiny_parts import Parts, mixed_records, samples

CPU = torch.device("cpu")


def batch_of(bundle: ModelBundle) -> Batch:
    return collate([samples(bundle, mixed_records())])


def gradients(bundle: ModelBundle, batch: Batch) -> dict[str, torch.Tensor]:
    bundle.mllm.train()
    bundle.mllm.zero_grad()
    logits = bundle.mllm(batch).logits
    assert logits is not None
    logits.logsumexp(-1).sum().backward()
    return {n: p.grad.clone() for n, p in bundle.mllm.named_parameters() if p.grad is not None}


def saved_bytes(bundle: ModelBundle, batch: Batch) -> int:
    """Bytes of activations that the graph of one pass holds, weights not counted."""
    weights = {p.data_ptr() for p in bundle.mllm.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = bundle.mllm(batch).logits
    assert output is not None
    return sum(held.values())


@pytest.mark.parametrize("tower", ["siglip", "aimv2", "internvl"])
@pytest.mark.parametrize("how", ["selective", "full"])
def test_recomputing_gives_the_same_gradients(how: str, tower: str, parts: Parts):
    plain, saving = parts.build(tower), parts.build(tower)
    config = ParallelConfig.model_validate({"recompute": {"tower": how, "language": how}})
    names = list(saving.mllm.state_dict())
    parallelize(saving.mllm, config, CPU, bf16=False)
    assert list(saving.mllm.state_dict()) == names
    batch = batch_of(plain)
    expected = gradients(plain, batch)
    torch.testing.assert_close(gradients(saving, batch), expected, rtol=0, atol=1e-6)


def test_full_recomputing_holds_least_and_selective_multiplies_less(parts: Parts):
    held, products = [], []
    for given in (
        {},
        {"tower": "selective", "language": "selective"},
        {"tower": "full", "language": "full"},
    ):
        bundle = parts.build()
        parallelize(
            bundle.mllm, ParallelConfig.model_validate({"recompute": given}), CPU, bf16=False
        )
        batch = batch_of(bundle)
        with FlopCounterMode(display=False) as counter:
            gradients(bundle, batch)
        products.append(counter.get_total_flops())
        held.append(saved_bytes(bundle, batch))
    plain, selective, full = products
    assert held[2] < 0.5 * held[0]
    assert plain <= selective < 1.1 * plain
    assert full > 1.2 * plain


def test_one_process_is_not_sharded(parts: Parts):
    bundle = parts.build()
    parallelize(bundle.mllm, ParallelConfig(mode="shard"), CPU, bf16=True)
    assert not is_sharded(bundle.mllm)
    assert not bundle.mllm.everywhere


def test_without_a_gpu_there_is_nothing_to_offload_from(parts: Parts):
    with pytest.raises(RecipeError, match=r"parallel.offload moves shards from a GPU"):
        parallelize(parts.build().mllm, ParallelConfig(mode="shard", offload=True), CPU, bf16=True)


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients(parts: Parts):
    plain, compiled = parts.build(), parts.build()
    parallelize(compiled.mllm, ParallelConfig(compile=True), CPU, bf16=False)
    batch = batch_of(plain)
    expected = gradients(plain, batch)
    torch.testing.assert_close(gradients(compiled, batch), expected, rtol=1e-4, atol=5e-5)

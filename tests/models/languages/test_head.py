"""The chunked loss: equal to the plain one, and never as large as all scores."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, CohereConfig, GraniteConfig

from sailvit.models.languages import head as module
from sailvit.models.languages.head import Scores, has_plain_head, product_dtype
from sailvit.models.packing.attention import PACKED, register_attention
from tiny_parts import LANGUAGES, Parts, record, samples, single_batches

A, D, N = 23, 8, 50


def given(seed: int = 0, **flags: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    make = torch.Generator().manual_seed(seed)
    shapes = {"hidden": (A, D), "weight": (N, D), "bias": (N,)}
    tensors = {
        n: torch.randn(s, generator=make).requires_grad_(flags.get(n, True))
        for n, s in shapes.items()
    }
    return tensors, torch.randint(0, N, (A,), generator=make)


@pytest.mark.parametrize("chunk", [1, 3 * N, 7 * N + 1, 1 << 24])
@pytest.mark.parametrize("flags", [{}, {"weight": False, "bias": False}, {"hidden": False}])
def test_loss_and_gradients_are_those_of_plain_cross_entropy(
    chunk: int, flags: dict[str, bool], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "CHUNK", chunk)
    tensors, labels = given(**flags)
    trained = [tensor for tensor in tensors.values() if tensor.requires_grad]
    expected = 0.3 * cross_entropy(linear(*tensors.values()), labels, reduction="sum")
    wanted = torch.autograd.grad(expected, trained)
    found = 0.3 * Scores(**tensors).loss(labels)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(found, trained), wanted, rtol=1e-5, atol=1e-6)


def test_without_a_graph_it_is_a_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CHUNK", 2 * N)
    tensors, labels = given(hidden=False, weight=False, bias=False)
    found = Scores(**tensors).loss(labels)
    assert not found.requires_grad
    torch.testing.assert_close(
        found, cross_entropy(linear(*tensors.values()), labels, reduction="sum")
    )


def test_no_answers_cost_nothing_and_keep_the_graph():
    tensors, labels = given()
    found = Scores(tensors["hidden"][:0], tensors["weight"]).loss(labels[:0])
    assert float(found) == 0
    found.backward()
    assert tensors["weight"].grad is not None
    assert not tensors["weight"].grad.any()


def test_bf16_products_are_as_close_as_plain_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CHUNK", 4 * N)
    tensors, labels = given()
    exact = torch.autograd.grad(Scores(**tensors).loss(labels), list(tensors.values()))
    with torch.autocast("cpu", torch.bfloat16):
        ours = Scores(**tensors).loss(labels)
        plain = cross_entropy(linear(*tensors.values()).float(), labels, reduction="sum")
    for mine, other, right in zip(
        torch.autograd.grad(ours, list(tensors.values())),
        torch.autograd.grad(plain, list(tensors.values())),
        exact,
        strict=True,
    ):
        assert mine.dtype == torch.float32
        assert (mine - right).norm() <= 1.2 * (other - right).norm() + 1e-6


class Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("answers", [100, 1000])
def test_the_largest_tensor_does_not_grow_with_the_answers(
    answers: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "CHUNK", 10 * 500)
    hidden, weight = (
        torch.randn(answers, 4, requires_grad=True),
        torch.randn(500, 4, requires_grad=True),
    )
    with Largest() as largest:
        Scores(hidden, weight).loss(torch.zeros(answers, dtype=torch.long)).backward()
    assert largest.elements == 10 * 500


@pytest.mark.parametrize("name", list(LANGUAGES))
def test_heads_of_the_usual_families_are_plain(name: str, parts: Parts):
    assert parts.build(language=name).mllm.plain_head


@pytest.mark.parametrize(
    "config",
    [
        CohereConfig(logit_scale=0.0625),
        GraniteConfig(logits_scaling=8.0),
    ],
)
def test_heads_that_do_more_are_found_out(config: Any):
    register_attention()
    config.update(
        {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 48,
        }
    )
    config.update({"num_key_value_heads": 2, "vocab_size": 60, "initializer_range": 0.5})
    language = AutoModelForCausalLM.from_config(config, attn_implementation=PACKED)
    assert not has_plain_head(language)


def test_products_run_in_the_dtype_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch):
    """The loss is taken outside autocast; in fp32 its products would take five times as long on the CPU."""
    monkeypatch.setattr(module, "CHUNK", 4 * N)
    tensors, labels = given()
    with torch.autocast("cpu", torch.bfloat16):
        inside = Scores(**tensors).loss(labels)
        assert product_dtype(torch.device("cpu")) == torch.bfloat16
    assert product_dtype(torch.device("cpu")) is None
    scores = Scores(**tensors, dtype=torch.bfloat16)
    outside = scores.loss(labels)
    assert torch.equal(outside, inside)
    for mine, other in zip(
        torch.autograd.grad(outside, list(tensors.values())),
        torch.autograd.grad(inside, list(tensors.values())),
        strict=True,
    ):
        assert torch.equal(mine, other)
        assert mine.dtype == torch.float32
    assert scores.logits.dtype == torch.bfloat16


def test_a_model_under_autocast_says_so(parts: Parts):
    made = parts.build()
    (batch,) = single_batches(samples(made, [record("text", answer="blue")]))
    with torch.autocast("cpu", torch.bfloat16):
        under = made.mllm(batch).scores
    plain = made.mllm(batch).scores
    assert (under.dtype, plain.dtype) == (torch.bfloat16, None)


def test_on_the_cpu_chunks_are_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CPU_CHUNK", 10 * 500)
    hidden, weight = (
        torch.randn(100, 4, requires_grad=True),
        torch.randn(500, 4, requires_grad=True),
    )
    with Largest() as largest:
        Scores(hidden, weight).loss(torch.zeros(100, dtype=torch.long)).backward()
    assert largest.elements == 10 * 500


@pytest.mark.parametrize("biased", [True, False])
def test_rows_of_scores_are_aligned_in_large_vocabularies(
    biased: bool, monkeypatch: pytest.MonkeyPatch
):
    """To the bit, in loss and gradients, whatever lies between the rows."""
    tensors, labels = given()
    if not biased:
        del tensors["bias"]
    results = []
    for start in (module.ALIGNED_FROM, N):
        monkeypatch.setattr(module, "ALIGNED_FROM", start)
        monkeypatch.setattr(module, "_HELD", {torch.float32: torch.full((A * 64,), math.nan)})
        scratch = module._scratch(A, N, like=tensors["hidden"])
        assert scratch.shape == (A, N)
        assert scratch.stride(0) == (64 if start == N else N)
        loss = Scores(**tensors).loss(labels)
        results.append((loss, *torch.autograd.grad(loss, list(tensors.values()))))
    for expected, found in zip(*results, strict=True):
        assert torch.equal(found, expected)
        assert found.isfinite().all()

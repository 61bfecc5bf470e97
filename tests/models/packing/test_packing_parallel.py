"""Samples of a pack stay apart where a run changes how blocks run: recomputed, compiled, sharded over processes."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path

import pytest
import torch
from tiny_languages import language_of, model_of, plain_copy, text_sample, worst_errors
from torch import nn
from transformers import PreTrainedModel

from sailvit.core.recipe import ParallelConfig
from sailvit.data.processing.collate import collate
from sailvit.models.structure.parallel import is_sharded, settle
from two_processes import in_two

WAYS = [
    ("llama", "auto", "packed"),
    ("llama", "rows", "rows"),
    ("gemma3_text", "auto", "packed"),
    ("lfm2", "auto", "rows"),
]
"""Families, what their recipes ask for, and the way that is chosen."""


def check(language: PreTrainedModel, way: str, **settings: object) -> None:
    """Prove and compare a language after it was parallelized so."""
    config = ParallelConfig.model_validate(settings)
    model = model_of(language, config.packing)
    reference = plain_copy(model.language)
    chosen = settle(model, config, torch.device("cpu"), bf16=False)
    assert is_sharded(model) == (config.mode == "shard")
    assert chosen.way.kind == way
    assert chosen.evidence is not None
    assert max(worst_errors(model, reference)) < 1e-5


@pytest.mark.parametrize("how", ["selective", "full"])
@pytest.mark.parametrize(("family", "packing", "way"), WAYS)
def test_recomputed(family: str, packing: str, way: str, how: str):
    check(language_of(family), way, packing=packing, recompute={"language": how})


def test_compiled(monkeypatch: pytest.MonkeyPatch):
    """Traced and differentiated as a compiled run does it, without the C++ compiler's minute."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    torch.compiler.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        check(language_of("llama", num_hidden_layers=1), "packed", compile=True)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "packing", "way"), WAYS)
def test_compiled_to_machine_code(family: str, packing: str, way: str):
    torch.compiler.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        check(language_of(family), way, compile=True, packing=packing)


def test_packs_of_other_shapes_compile_nothing_anew(monkeypatch: pytest.MonkeyPatch):
    """Buckets, of which every pack has others, stay outside what is compiled."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    torch.compiler.reset()
    model = model_of(language_of("llama", num_hidden_layers=1))
    settle(model, ParallelConfig(compile=True), torch.device("cpu"), bf16=False)
    generator = torch.Generator().manual_seed(4)

    def read(*lengths: int) -> None:
        texts = [torch.randint(3, 300, (length,), generator=generator) for length in lengths]
        model(collate([[text_sample(text) for text in texts]]))

    read(9, 9, 80)
    read(100, 2)
    with torch.compiler.set_stance("fail_on_recompile"):
        read(3, 3, 3, 90, 90)
        read(7, 110, 30, 1)
    # torch's own limit would be used up by stages that train other parts.
    assert torch._dynamo.config.recompile_limit >= 64


@pytest.mark.parametrize(("family", "packing", "way"), WAYS)
def test_sharded_over_two_processes(family: str, packing: str, way: str, tmp_path: Path):
    """Each process has another pack, with other numbers of padded rows."""
    settings = {"mode": "shard", "packing": packing}
    assert in_two(tmp_path, lambda _: check(language_of(family), way, **settings)) == ["done"] * 2

"""Samples of a pack stay apart where a run changes how blocks run: recomputed, compiled, sharded over processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_languages import language_of, model_of, plain_copy, worst_errors

from sailvit.core.recipe import ParallelConfig
from sailvit.models.structure.parallel import is_sharded, settle
from two_processes import in_two

WAYS = [
    ("llama", "auto", "packed"),
    ("llama", "rows", "rows"),
    ("gemma3_text", "auto", "packed"),
    ("lfm2", "auto", "rows"),
]
"""Families, what their recipes ask for, and the way that is chosen."""


def check(family: str, way: str, **settings: object) -> None:
    """Prove and compare a language after it was parallelized so."""
    config = ParallelConfig.model_validate(settings)
    model = model_of(language_of(family), config.packing)
    reference = plain_copy(model.language)
    chosen = settle(model, config, torch.device("cpu"), bf16=False)
    assert is_sharded(model) == (config.mode == "shard")
    assert chosen.way.kind == way
    assert chosen.evidence is not None
    assert max(worst_errors(model, reference)) < 1e-5


@pytest.mark.parametrize("how", ["selective", "full"])
@pytest.mark.parametrize(("family", "packing", "way"), WAYS)
def test_recomputed(family: str, packing: str, way: str, how: str):
    check(family, way, packing=packing, recompute={"language": how})


@pytest.mark.parametrize(("family", "packing", "way"), WAYS)
def test_sharded_over_two_processes(family: str, packing: str, way: str, tmp_path: Path):
    """Each process has another pack, with other numbers of padded rows."""
    settings = {"mode": "shard", "packing": packing}
    assert in_two(tmp_path, lambda _: check(family, way, **settings)) == ["done"] * 2

"""Liger's kernels: used on a GPU where they are there, with our own loss, and nowhere else."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from sailvit.core.recipe import ParallelConfig
from sailvit.models.languages import kernels
from sailvit.models.languages.kernels import fuse
from sailvit.models.structure import parallel
from tiny_parts import Parts

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A liger-kernel that notes what it is asked for, through the function that transformers calls."""
    asked: list[dict[str, Any]] = []
    fake = ModuleType("liger_kernel.transformers")
    fake._apply_liger_kernel_to_instance = lambda **given: asked.append(given)
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", fake)
    monkeypatch.setattr(kernels, "is_liger_kernel_available", lambda: True)
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda: True)
    return asked


def test_on_a_gpu_the_language_is_fused_and_its_loss_left_alone(liger, parts: Parts):
    language = parts.build().mllm.language
    assert fuse(language, GPU)
    (asked,) = liger
    assert asked == {"model": language, "cross_entropy": False, "fused_linear_cross_entropy": False}


def test_without_a_gpu_nothing_is_fused(liger, parts: Parts):
    assert not fuse(parts.build().mllm.language, CPU)
    assert liger == []


def test_without_liger_nothing_is_fused(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "is_liger_kernel_available", lambda: False)
    assert not fuse(parts.build().mllm.language, GPU)


@pytest.mark.parametrize(
    ("config", "fused"),
    [({}, True), ({"kernels": "plain"}, False), ({"compile": True}, False)],
)
def test_the_recipe_decides(
    config: dict[str, Any], fused: bool, parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Any] = []
    monkeypatch.setattr(parallel, "fuse", lambda language, device: seen.append(language))
    model = parts.build().mllm
    parallel.parallelize(model, ParallelConfig(**config), CPU, bf16=False)
    assert seen == ([model.language] if fused else [])

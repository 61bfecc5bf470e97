"""Peaks of this process."""

from __future__ import annotations

import resource

import pytest
import torch

from sailvit.core.memory import PeakMemory

MIB = 1 << 20


def test_a_peak_is_seen_after_it_is_over_and_can_be_forgotten():
    memory = PeakMemory(torch.device("cpu"))
    assert memory.kind == "process"
    memory.restart()
    before = memory.bytes()
    block = torch.ones(64 * MIB // 4)
    del block
    assert memory.bytes() >= before + 60 * MIB
    memory.restart()
    assert memory.bytes() < before + 60 * MIB


def test_without_proc_the_process_as_a_whole_is_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sailvit.core.memory._PROC", "/nowhere")
    memory = PeakMemory(torch.device("cpu"))
    memory.restart()
    assert memory.bytes() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

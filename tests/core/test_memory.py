"""Peaks of this process."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from sailvit.core.memory import PeakMemory, free_memory

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


CPU = torch.device("cpu")


def test_free_memory_is_what_the_machine_or_the_container_has_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4096 kB\nMemAvailable: 2048 kB\n", encoding="utf-8")
    monkeypatch.setattr("sailvit.core.memory._MEMINFO", str(meminfo))
    monkeypatch.setattr("sailvit.core.memory._CONTAINER", str(tmp_path))
    assert free_memory(CPU) == 2048 * 1024
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    (tmp_path / "memory.current").write_text("500\n", encoding="utf-8")
    assert free_memory(CPU) == 2048 * 1024
    (tmp_path / "memory.max").write_text("2000\n", encoding="utf-8")
    assert free_memory(CPU) == 1500
    meminfo.unlink()
    (tmp_path / "memory.max").unlink()
    assert free_memory(CPU) is None

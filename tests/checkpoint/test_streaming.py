"""Streaming: plain safetensors files, aligned, and a save that holds no copy of the state."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sailvit.checkpoint import store as module
from sailvit.checkpoint.store import Checkpoints
from sailvit.checkpoint.streaming import Piece, write_pieces
from sailvit.core.errors import RunError
from sailvit.core.memory import PeakMemory


def piece(name: str, tensor: torch.Tensor) -> Piece:
    return Piece(name, tensor.dtype, tuple(tensor.shape), (0,) * tensor.ndim, lambda: tensor)


def test_every_type_and_layout_reads_back_as_plain_safetensors(tmp_path: Path):
    made = {
        "odd": torch.arange(3, dtype=torch.uint8),
        "flag": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5).bfloat16(),
        "turned": torch.randn(4, 6).T,
        "sliced": torch.randn(8, 6)[::2, 1:4],
        "number": torch.tensor(2**40),
        "empty": torch.zeros(0, 7),
        "wide": torch.randn(3, dtype=torch.float64),
        "leaf": torch.randn(5, requires_grad=True),
    }
    write_pieces(tmp_path / "a.safetensors", [piece(n, t) for n, t in made.items()])
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == made.keys()
    assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in made.items())
    raw = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    starts = {n: entry["data_offsets"][0] for n, entry in header.items() if n in made}
    assert length % 8 == 0
    assert all(starts[name] % tensor.element_size() == 0 for name, tensor in made.items())


def test_a_save_takes_far_less_memory_than_the_state(tmp_path: Path):
    state = {str(number): torch.full((1 << 20,), float(number)) for number in range(32)}
    size = sum(tensor.nbytes for tensor in state.values())
    store, memory = Checkpoints(tmp_path), PeakMemory(torch.device("cpu"))
    store.save((0, 1), {"warm": torch.zeros(4)}, {}, wait=True)
    memory.restart()
    before = memory.bytes()
    store.save((0, 2), state, {}, wait=True)
    assert memory.bytes() - before < size / 4


def test_a_disk_that_fills_up_gets_its_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Checkpoints(tmp_path)
    store.save((0, 1), {"a": torch.ones(4)}, {"n": 1}, wait=True)

    def full(folder: Path, *_: object, **__: object) -> None:
        (folder / "half.safetensors").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        module.StreamingWriter, "write_data", lambda writer, *_: full(Path(writer.path))
    )
    with pytest.raises(RunError, match="No space left on device"):
        store.save((0, 2), {"a": torch.ones(4)}, {"n": 2}, wait=True)
    assert [path.name for path in tmp_path.iterdir()] == ["00-00000001"]


def test_a_state_that_is_set_aside_is_resumed_from_by_nothing(tmp_path: Path):
    store = Checkpoints(tmp_path, keep=1)
    store.save((0, 1), {"a": torch.ones(4)}, {"n": 1}, wait=True)
    for step in (2, 3):
        path = store.save((0, step), {"a": torch.ones(4)}, {"n": step}, wait=True, aside="unproved")
    assert path == tmp_path / "unproved-00-00000003"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["00-00000001", path.name]
    found, _ = store.newest()
    assert found is not None
    assert found.values == {"n": 1}
    assert store.has((0, 1))
    assert not store.has((0, 3))
    # A person who knows better gives it its plain name.
    path.rename(tmp_path / "00-00000003")
    assert store.newest()[0].values == {"n": 3}  # type: ignore[union-attr]

"""Weights in another precision are written in files of a bounded size, in the memory of one tensor."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from sailvit.checkpoint.streaming import Piece
from sailvit.core.memory import PeakMemory
from sailvit.interop.export.trained import pieces
from sailvit.interop.weights import write_weights

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.randn(4, 4, generator=torch.Generator().manual_seed(0)),
    "ids": torch.arange(3),
    "scalar": torch.tensor(2.0),
}


def test_integers_keep_their_type(tmp_path: Path):
    write_weights(tmp_path, pieces(TENSORS, torch.bfloat16))
    found = load_file(tmp_path / "model.safetensors")
    assert found["ids"].dtype == torch.int64
    assert found["b"].dtype == torch.bfloat16
    assert torch.equal(found["b"], TENSORS["b"].to(torch.bfloat16))


MIB = 1 << 20
MOST = 48 * MIB
"""Bytes of a file here; 5 GB in an export."""


def piece(name: str, rows: int) -> Piece:
    """A tensor of so many MiB that is rounded when its turn has come, as an export's are."""

    def fetch() -> torch.Tensor:
        return torch.full((rows, MIB // 2), float(rows)).bfloat16()

    return Piece(name, torch.bfloat16, (rows, MIB // 2), (0, 0), fetch)


def test_files_stay_below_the_limit_and_memory_below_one_and_a_half_of_them(tmp_path: Path):
    made = [piece(str(number), 4 + number % 5) for number in range(40)]
    (tmp_path / "warm").mkdir()
    write_weights(tmp_path / "warm", made[:1])
    memory = PeakMemory(torch.device("cpu"))
    memory.restart()
    before = memory.bytes()
    write_weights(tmp_path, made, most=MOST)
    assert memory.bytes() - before < 1.5 * MOST
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) == 6
    assert all(file.stat().st_size < MOST + 4096 for file in files)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(each.size for each in made) > 4 * MOST
    places = {name: file.name for file in files for name in load_file(file)}
    assert places == index["weight_map"]
    last = load_file(files[-1])["39"]
    assert last.shape == (8, MIB // 2)
    assert bool((last == 8).all())


def test_a_tensor_above_the_limit_has_its_own_file(tmp_path: Path):
    made = [piece("a", 1), piece("b", 3), piece("c", 1)]
    write_weights(tmp_path, made, most=2 * MIB)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) == 3
    assert load_file(tmp_path / index["b"]).keys() == {"b"}

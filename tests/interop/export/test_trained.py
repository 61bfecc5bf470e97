"""Weights in another precision are written in the memory of one tensor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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


MEASURE = """
import resource, sys, torch
from pathlib import Path
from sailvit.interop.export.trained import pieces
from sailvit.interop.weights import write_weights
tensors = {str(n): torch.ones(1 << 20) for n in range(64)}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_weights(Path(sys.argv[1]), pieces(tensors, torch.bfloat16), most=1 << 26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_writing_takes_less_memory_than_half_a_file(tmp_path: Path):
    """128 MiB in files of 64 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 32 << 10
    assert len(list(tmp_path.glob("*.safetensors"))) == 2

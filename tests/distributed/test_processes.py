"""With one process every function is the identity; with two they add up and gather."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from sailvit.core.errors import RunError
from sailvit.distributed.processes import (
    arrive,
    gather_rows,
    rank,
    rows_before,
    sum_counts,
    sum_gradients,
    sum_values,
    world,
)

CPU = torch.device("cpu")


def test_one_process_is_the_identity():
    rows = torch.randn(3, 2, requires_grad=True)
    parameter = torch.nn.Parameter(torch.ones(2))
    sum_gradients([parameter])
    assert (rank(), world(), rows_before(3, CPU)) == (0, 1, 0)
    assert (sum_counts([2**62, 1], CPU), sum_values([0.1, 0.2], CPU)) == ([2**62, 1], [0.1, 0.2])
    assert torch.equal(gather_rows(rows), rows)
    assert not gather_rows(rows).requires_grad
    assert parameter.grad is None


def as_one_of_three(index: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/join", rank=index, world_size=3
    )
    shared, lone, idle = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    shared.grad = torch.full((2,), float(index))
    lone.grad = torch.ones(2) if index == 1 else None
    sum_gradients([shared, lone, idle])
    sizes = [2, 0, 3]
    rows = torch.full((sizes[index], 2), float(index))
    found = {
        "counts": sum_counts([2**53 + 1, index], CPU),
        "values": sum_values([0.1 * index], CPU),
        "rows": gather_rows(rows),
        "before": rows_before(sizes[index], CPU),
        "gradients": (shared.grad, lone.grad, idle.grad),
        "rank": rank(),
    }
    torch.save(found, f"{folder}/{index}.pt")
    torch.distributed.destroy_process_group()


def test_three_processes_with_unequal_rows(tmp_path: Path):
    torch.multiprocessing.start_processes(
        as_one_of_three, (str(tmp_path),), nprocs=3, start_method="fork"
    )
    for index in range(3):
        found = torch.load(tmp_path / f"{index}.pt")
        # Larger than a float holds exactly.
        assert found["counts"] == [3 * (2**53 + 1), 3]
        assert abs(found["values"][0] - 0.3) < 1e-15
        assert found["rows"].tolist() == [[0.0, 0.0]] * 2 + [[2.0, 2.0]] * 3
        assert found["before"] == [0, 2, 2][index]
        assert found["rank"] == index
        shared, lone, idle = found["gradients"]
        assert (shared.tolist(), lone.tolist(), idle) == ([3.0, 3.0], [1.0, 1.0], None)


def as_one_of_two_that_wait(index: int, folder: str) -> None:
    """Both come to the first place; only rank 0 comes to the second."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/join", rank=index, world_size=2
    )
    arrive("the first place", timedelta(seconds=60))
    if index == 0:
        with pytest.raises(RunError) as caught:
            arrive("measuring the data", timedelta(seconds=1))
        Path(folder, "said").write_text(str(caught.value))
    else:
        while not Path(folder, "said").exists():
            time.sleep(0.05)


def test_a_process_that_never_arrives_is_named_with_the_place(tmp_path: Path):
    torch.multiprocessing.start_processes(
        as_one_of_two_that_wait, (str(tmp_path),), nprocs=2, start_method="fork"
    )
    said = (tmp_path / "said").read_text()
    assert "rank 0 of 2 waited at `measuring the data` for 1 s" in said
    assert "Ranks 1 failed to pass monitoredBarrier" in said


def test_one_process_has_nobody_to_wait_for():
    arrive("anywhere", timedelta(seconds=0))

"""Checkpoints: round trips, crashes at any moment, damage found, the right ones kept, other numbers of processes."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from sailvit.checkpoint import store as module
from sailvit.checkpoint.store import Checkpoints, Saved, has_checkpoint
from sailvit.core.errors import RunError
from sailvit.distributed.processes import barrier, process_group, rank, world


def tensors(number: float) -> dict[str, torch.Tensor]:
    value = float(number)
    return {
        "weight/a": torch.full((2, 3), value),
        "step/a": torch.tensor(value),
        "view": torch.arange(6.0).view(2, 3).T,
        "leaf": torch.full((2,), value, requires_grad=True),
    }


def newest(store: Checkpoints) -> Saved:
    found, notes = store.newest()
    assert found is not None
    assert notes == []
    return found


def read(saved: Saved) -> dict[str, torch.Tensor]:
    found = {name: torch.full(shape, -1.0) for name, shape in saved.shapes().items()}
    saved.read(found)
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path: Path):
    store = Checkpoints(tmp_path / "run/state")
    values = {"step": 3, "cursor": {"drawn": {"a": 1}, "pending": [["a", 0]]}, "seconds": 0.1}
    assert not has_checkpoint(store.folder)
    store.save((0, 3), tensors(1.5), values, wait=True)
    assert has_checkpoint(store.folder)
    found = newest(store)
    assert found.values == values
    assert found.path.name == "00-00000003"
    assert all(torch.equal(value, tensors(1.5)[name]) for name, value in read(found).items())


def test_what_happens_to_the_tensors_after_save_returns_is_not_saved(tmp_path: Path):
    store = Checkpoints(tmp_path)
    live = {"large": torch.zeros(1 << 22), "small": torch.zeros(())}
    for step in range(1, 6):
        store.save((0, step), live, {}, wait=False)
        with torch.no_grad():
            for tensor in live.values():
                tensor.add_(1)
    store.wait()
    assert all((value == 4).all() for value in read(newest(store)).values())


def test_bits_survive(tmp_path: Path):
    odd = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, torch.finfo(torch.float32).max])
    store = Checkpoints(tmp_path)
    store.save(
        (1, 1), {"odd": odd, "half": odd.bfloat16(), "count": torch.tensor(2**40)}, {}, wait=True
    )
    found = {
        "odd": torch.zeros(5),
        "half": torch.zeros(5, dtype=torch.bfloat16),
        "count": torch.tensor(0),
    }
    newest(store).read(found)
    assert torch.equal(found["odd"].view(torch.int32), odd.view(torch.int32))
    assert torch.equal(found["half"].view(torch.int16), odd.bfloat16().view(torch.int16))
    assert int(found["count"]) == 2**40


def test_the_last_few_and_the_best_are_kept(tmp_path: Path):
    store = Checkpoints(tmp_path, keep=2, keep_best=True)
    for step, score in enumerate([3.0, 1.0, 2.0, 2.5, 2.4], start=1):
        store.save((0, step), tensors(step), {"score": score}, wait=False)
    store.wait()
    assert names(tmp_path) == ["00-00000002", "00-00000004", "00-00000005"]
    store.save((1, 1), tensors(9), {"score": 0.5}, wait=True)
    assert names(tmp_path) == ["00-00000005", "01-00000001"]
    store.save((1, 2), tensors(10), {"score": 0.7}, wait=True)
    store.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert json.loads((tmp_path / "best/values.json").read_text()) == {"score": 0.5}
    assert not has_checkpoint(tmp_path)
    Checkpoints(tmp_path).clear()
    assert not tmp_path.exists()


def test_a_checkpoint_may_be_written_again(tmp_path: Path):
    store = Checkpoints(tmp_path)
    store.save((0, 1), tensors(1), {"n": 1}, wait=True)
    store.save((0, 1), tensors(2), {"n": 2}, wait=True)
    assert newest(store).values == {"n": 2}
    assert float(read(newest(store))["step/a"]) == 2


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "values", "manifest"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str):
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        store.save((0, step), tensors(step), {"step": step}, wait=True)
    last = tmp_path / "00-00000002"
    file = next(last.glob("*.safetensors"))
    match damage:
        case "flip":
            flip(file)
        case "cut":
            os.truncate(file, file.stat().st_size - 8)
        case "remove":
            file.unlink()
        case "values":
            (last / "values.json").write_text('{"step": 3}')
        case "manifest":
            (last / "complete.json").write_text("{")
    found, notes = store.newest()
    assert found is not None
    assert found.values == {"step": 1}
    assert float(read(found)["step/a"]) == 1
    assert len(notes) == 1
    assert "00-00000002 is damaged" in notes[0]


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_checkpoints_are_kept_aside_and_do_not_count(tmp_path: Path, keep: int):
    store = Checkpoints(tmp_path, keep=keep, keep_best=True)
    for step in (10, 20, 30):
        store.save((0, step), tensors(step), {"score": float(step)}, wait=True)
    flip(next((tmp_path / "00-00000030").glob("*.safetensors")))
    store = Checkpoints(tmp_path, keep=keep, keep_best=True)
    found, notes = store.newest()
    assert found is not None
    assert found.path.name == ("00-00000010" if keep == 1 else "00-00000020")
    assert "00-00000030 is damaged" in notes[0]
    assert "kept as damaged-00-00000030" in notes[0]
    for step in (22, 24):
        store.save((0, step), tensors(step), {"score": float(step)}, wait=True)
        assert newest(store).path.name == f"00-000000{step}"
    assert names(tmp_path)[-1] == "damaged-00-00000030"
    assert (tmp_path / "damaged-00-00000030/complete.json").exists()


def test_a_score_that_is_not_finite_is_never_the_best(tmp_path: Path):
    store = Checkpoints(tmp_path, keep=1, keep_best=True)
    for step, score in enumerate([math.nan, 2.0, -math.inf, 3.0], start=1):
        store.save((0, step), tensors(step), {"score": score}, wait=True)
    assert names(tmp_path) == ["00-00000002", "00-00000004"]


def test_clearing_goes_on_where_it_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Checkpoints(tmp_path, keep=2, keep_best=True)
    for step, score in enumerate([1.0, 2.0, 3.0], start=1):
        store.save((0, step), tensors(step), {"score": score}, wait=True)

    def cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            store.clear()
    assert names(tmp_path) == ["00-00000002", "00-00000003", "best"]
    again = Checkpoints(tmp_path, keep=2, keep_best=True)
    again.save((0, 4), tensors(4), {"score": 4.0}, wait=True)
    again.clear()
    assert names(tmp_path) == ["best"]
    assert json.loads((tmp_path / "best/values.json").read_text()) == {"score": 1.0}


def test_nothing_usable_is_said_not_guessed(tmp_path: Path):
    store = Checkpoints(tmp_path)
    assert store.newest() == (None, [])
    store.save((0, 1), tensors(1), {}, wait=True)
    flip(next((tmp_path / "00-00000001").glob("*.safetensors")))
    found, notes = store.newest()
    assert found is None
    assert "another checksum" in notes[0]


def test_tensors_that_do_not_fit_are_refused(tmp_path: Path):
    store = Checkpoints(tmp_path)
    store.save((0, 1), tensors(1), {}, wait=True)
    with pytest.raises(RunError, match=r"shape \[2, 3\] for weight/a; expected shape \[3, 3\]"):
        newest(store).read({"weight/a": torch.zeros(3, 3)})
    with pytest.raises(RunError, match="no such tensor for weight/b"):
        newest(store).read({"weight/b": torch.zeros(3, 3)})


def test_a_full_disk_is_a_sentence_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Checkpoints(tmp_path)
    store.save((0, 1), tensors(1), {"step": 1}, wait=True)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "summary", full)
    store.save((0, 2), tensors(2), {"step": 2}, wait=False)
    with pytest.raises(
        RunError, match=r"No space left on device.*complete checkpoints are as they were"
    ):
        store.wait()
    monkeypatch.undo()
    assert newest(store).values == {"step": 1}
    store.save((0, 3), tensors(3), {"step": 3}, wait=True)
    assert newest(store).values == {"step": 3}


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path):
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="could not be written to"):
        Checkpoints(tmp_path / "state").save((0, 1), tensors(1), {}, wait=True)


def _write_on(folder: Path) -> None:
    """Save one state after the other, until the process is killed."""
    torch.set_num_threads(1)
    store = Checkpoints(folder)
    for step in range(1, 10_000):
        state = {f"t{i}": torch.full((1 << 18,), float(step)) for i in range(8)}
        store.save((0, step), state, {"step": step}, wait=False)


@pytest.mark.parametrize("delay", [0.05, 0.21, 0.37])
def test_sigkill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path, delay: float):
    # A fork, as a fresh process would import torch for seconds before it writes.
    writer = multiprocessing.get_context("fork").Process(target=_write_on, args=(tmp_path,))
    writer.start()
    deadline = time.monotonic() + 60
    while not has_checkpoint(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    writer.kill()
    writer.join()
    found = newest(Checkpoints(tmp_path))
    assert all((value == found.values["step"]).all() for value in read(found).values())


WHOLE = torch.arange(35.0).view(7, 5)


def _save_sharded(store: Checkpoints, mesh: DeviceMesh) -> None:
    sharded = distribute_tensor(WHOLE, mesh, [Shard(0)])
    state = {"sharded": sharded, "plain": torch.tensor(3.0)}
    for step in (1, 2):
        store.save((0, step), state, {"step": step}, wait=False)
        sharded.to_local().add_(1)
    store.wait()


def _load_sharded(store: Checkpoints, mesh: DeviceMesh) -> None:
    found, _ = store.newest()
    assert found is not None
    zeros = distribute_tensor(torch.zeros(7, 5), mesh, [Shard(0)])
    state = {"sharded": zeros, "plain": torch.tensor(0.0)}
    found.read(state)
    same = torch.equal(zeros.full_tensor(), WHOLE + 1) and float(state["plain"]) == 3
    if rank() == 0:
        told = json.dumps({"same": same, "values": found.values})
        (store.folder.parent / "told.json").write_text(told)


def _as_rank(
    index: int, port: int, count: int, folder: str, deed: Callable[[Checkpoints, DeviceMesh], None]
) -> None:
    """Do a deed as torchrun would start it."""
    torch.set_num_threads(1)
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with process_group():
        deed(Checkpoints(Path(folder)), init_device_mesh("cpu", (world(),)))
        # A process that leaves the group while another still uses it makes that one abort, now and
        # then, and so does taking the group down: both end here, after what is compared.
        barrier()
        time.sleep(0.2)
        os._exit(0)


def in_processes(count: int, folder: Path, deed: Callable[[Checkpoints, DeviceMesh], None]) -> None:
    """A deed in so many forks of this process; an error in one of them is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (port, count, str(folder), deed)
    running = torch.multiprocessing.start_processes(
        _as_rank, given, nprocs=count, join=False, daemon=True, start_method="fork"
    )
    until = time.monotonic() + 120
    while not running.join(timeout=1):
        assert time.monotonic() < until, "a process hangs"


def test_sharded_tensors_come_back_on_another_number_of_processes(tmp_path: Path):
    in_processes(2, tmp_path / "state", _save_sharded)
    in_processes(3, tmp_path / "state", _load_sharded)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told == {"same": True, "values": {"step": 2}}
    # And in one process without a group, as whole tensors.
    saved = newest(Checkpoints(tmp_path / "state"))
    assert torch.equal(read(saved)["sharded"], WHOLE + 1)

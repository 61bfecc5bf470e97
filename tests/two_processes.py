"""Two processes that train one run together, and what became of each within a time limit."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from sailvit.distributed.processes import process_group

LIMIT = 180.0
"""Seconds after which processes that wait for each other count as hanging: many times what they
take, as a busy machine may be slow."""


def _as_process(index: int, port: int, folder: str, work: Callable[[int], None]) -> None:
    """Work as torchrun would start it; a file says how it ended."""
    torch.set_num_threads(1)
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    said = "done"
    try:
        with Path(folder, f"{index}.stacks").open("w") as stacks, process_group():
            faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
            work(index)
    except Exception as error:  # noqa: BLE001 - told to the test
        said = f"{type(error).__name__}: {error}"
    finally:
        Path(folder, f"{index}.said").write_text(said)


def in_two(folder: Path, work: Callable[[int], None], limit: float = LIMIT) -> list[str]:
    """`done` or the error of each process; AssertionError when one of them is still waiting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = torch.multiprocessing.start_processes(
        _as_process, (port, str(folder), work), nprocs=2, start_method="fork", join=False
    )
    files = [folder / f"{index}.said" for index in range(2)]
    end = time.monotonic() + limit
    while any(process.is_alive() for process in running.processes) and time.monotonic() < end:
        time.sleep(0.05)
    hanging = [index for index, each in enumerate(running.processes) if each.is_alive()]
    stacks = [_stacks_of(running.processes[index], folder / f"{index}.stacks") for index in hanging]
    for process in running.processes:
        process.kill()
        process.join()
    told = [file.read_text() if file.exists() else "killed" for file in files]
    assert not hanging, "\n".join((f"ranks {hanging} hang; they said {told}", *stacks))
    return told


def _stacks_of(process: BaseProcess, file: Path) -> str:
    """Where every thread of a hanging process is."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGUSR1)
    time.sleep(1.0)
    return file.read_text() if file.exists() else "not started"

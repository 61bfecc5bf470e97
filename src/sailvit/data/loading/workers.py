"""Worker processes: their start, and their end with the process that started them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from sailvit.core.errors import DataError

_GLANCE = 1.0
"""Seconds between checks whether the parent is alive."""


def start_worker(_: int) -> None:
    """Set up this process as a worker: one thread, as workers share the cores with training."""
    # The parent's garbage is not for a fork to collect: a process group in it would wait for
    # threads that are not here. Nor are pages copied, then, that the collector would only mark.
    gc.freeze()
    torch.set_num_threads(1)
    # torch's default keeps a file open per tensor: large steps would reach the limit of those.
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    # Ctrl-C and cluster managers signal all processes of a run; the main process answers for
    # its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_attend, args=(multiprocessing.parent_process(),), daemon=True).start()


@contextmanager
def naming_deaths() -> Iterator[None]:
    """A context in which torch's RuntimeError about a killed worker becomes a DataError that
    says what to do.

    torch raises it in a signal handler, so at any point of the program; errors of that handler
    are changed too. Enter the context after the workers have started, as torch installs the
    handler then.
    """
    if threading.current_thread() is not threading.main_thread():
        with _named():
            yield
        return
    # Local names: an interpreter that ends clears modules, perhaps before this generator is
    # closed.
    install, death, told = signal.signal, signal.SIGCHLD, signal.getsignal(signal.SIGCHLD)

    def tell_of_death(number: int, frame: FrameType | None) -> None:
        """The handler of torch, with its error changed."""
        if callable(told):
            with _named():
                told(number, frame)

    install(death, tell_of_death)
    try:
        with _named():
            yield
    finally:
        install(death, told)


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise DataError(
            f"a loader process ended: {str(error).splitlines()[0].strip(' .')}. Most often"
            " memory ran out: lower `workers`, `micro_batch` or `pack_tiles`, or give a"
            " container more /dev/shm; then go on with --resume",
            kind="worker",
        ) from error


def _attend(parent: Any) -> None:
    """End this process with its parent, or when the parent sends SIGTERM.

    torch's worker loop checks for its parent too, but neither before the loop runs nor while a
    record is read.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while parent.is_alive():
        told = signal.sigtimedwait({signal.SIGTERM}, _GLANCE)
        if told is not None and told.si_pid == parent.pid:
            break
    os._exit(0)

"""Worker processes: how they start, and that none outlives the process that started it."""

from __future__ import annotations

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
"""Seconds between looks whether the parent is still there."""


def start_worker(_: int) -> None:
    """Set up this process as a worker: one thread, as loaders share the cores with training."""
    torch.set_num_threads(1)
    # Not an open file per tensor: large steps would run into the limit of open files.
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    # A signal to all processes of a run, as Ctrl-C and cluster managers send it, is the main
    # process's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_attend, args=(multiprocessing.parent_process(),), daemon=True).start()


@contextmanager
def naming_deaths() -> Iterator[None]:
    """DataError that says what to do, where torch raises RuntimeError because a worker was killed.

    torch notices such deaths by a signal, so at any point of the program; inside, that
    handler's error is changed too. Enter it after the workers have started.
    """
    if threading.current_thread() is not threading.main_thread():
        with _named():
            yield
        return
    # Local names, as an interpreter that ends may have cleared the others when the loop is
    # given up.
    install, death, told = signal.signal, signal.SIGCHLD, signal.getsignal(signal.SIGCHLD)

    def tell_of_death(number: int, frame: FrameType | None) -> None:
        """What the handler found says, in words for the user."""
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
            f"a loader process ended: {str(error).splitlines()[0].strip(' .')}. Most often memory ran out: lower"
            " `workers`, `micro_batch` or `pack_tiles`, or give a container more /dev/shm; then go on with --resume",
            kind="worker",
        ) from error


def _attend(parent: Any) -> None:
    """End this process with its parent, or when the parent says so.

    torch looks for its parent too, but not before its loop runs nor while a record is read.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while parent.is_alive():
        told = signal.sigtimedwait({signal.SIGTERM}, _GLANCE)
        if told is not None and told.si_pid == parent.pid:
            break
    os._exit(0)

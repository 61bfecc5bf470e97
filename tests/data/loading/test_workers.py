"""The start of a worker process."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from sailvit.data.loading.workers import start_worker


class Garbage:
    """Cannot be reached, and only the collector can end it; it leaves a file then."""

    def __init__(self, file: Path) -> None:
        self._itself = self
        self._file = file

    def __del__(self) -> None:
        self._file.touch()


def as_worker() -> None:
    gc.unfreeze()
    start_worker(0)


def as_test() -> None:
    """A fork of the tests, without more."""


@pytest.mark.parametrize("start", [as_worker, as_test])
def test_a_fork_leaves_the_garbage_of_its_parent_alone(tmp_path: Path, start: Callable[[], None]):
    """Process groups in it end with threads that only the parent has, and wait for them."""

    def work() -> None:
        start()
        gc.collect()

    gc.disable()
    try:
        Garbage(tmp_path / "ended")
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == 0
        assert not (tmp_path / "ended").exists()
        gc.collect()
        assert (tmp_path / "ended").exists()
    finally:
        gc.enable()

"""A process pool that gives results in the order of its jobs and keeps few in memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from sailvit.core.errors import SailvitError

Job = TypeVar("Job")
Result = TypeVar("Result")
Handle = TypeVar("Handle")

_PREFETCH = 4
"""Jobs per process that are submitted before the oldest result is taken."""
_TASK: list[Callable[[Any], Any]] = []
"""In a process of the pool: the function of a job. It is sent once per process, as it may hold
a source and a tokenizer."""


def map_ordered(
    task: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int
) -> Iterator[Result]:
    """`task(job)` for every job, in order: in this process with fewer than two workers, else in
    a process pool.
    """
    if workers < 2:
        yield from map(task, jobs)
        return
    # Not a fork of this process, whose threads and devices do not survive one. The server that
    # is forked instead imports what the task needs once for all.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([type(task).__module__])
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(task,))
    try:
        yield from in_order(
            lambda job: pool.submit(_run, job), Future.result, jobs, most=workers * _PREFETCH
        )
    except BrokenProcessPool as error:
        raise SailvitError(
            f"one of {workers} worker processes ended without a result ({error}); it may have"
            " run out of memory: try again with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    submit: Callable[[Job], Handle],
    take: Callable[[Handle], Result],
    jobs: Iterable[Job],
    *,
    most: int,
) -> Iterator[Result]:
    """Results in the order of the jobs, of which at most `most` are submitted at any time."""
    waiting: deque[Handle] = deque()
    for job in jobs:
        waiting.append(submit(job))
        if len(waiting) >= most:
            yield take(waiting.popleft())
    while waiting:
        yield take(waiting.popleft())


def _start(task: Callable[[Any], Any]) -> None:
    """Prepare a process of the pool: it leaves Ctrl-C to the parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _TASK[:] = [task]


def _end_with_parent() -> None:
    # A killed parent closes no pool: its processes would wait for jobs for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(job: Any) -> Any:
    return _TASK[0](job)

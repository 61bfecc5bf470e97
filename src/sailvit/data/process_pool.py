"""Many jobs for several processes: results in the order of the jobs, few of them at hand at any
time.
"""

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
"""Jobs per process that are handed out before the oldest result is taken."""
_TASK: list[Callable[[Any], Any]] = []
"""In a process of a pool: what it does with a job. Sent once, as it may hold a source and a
tokenizer."""


def map_ordered(
    task: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int
) -> Iterator[Result]:
    """`task(job)` for every job, in their order; below two workers in this process, else in
    fresh ones.

    They are forked from a server that has imported what the task needs, once; this process may
    hold threads and devices, which do not survive a fork.
    """
    if workers < 2:
        yield from map(task, jobs)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([type(task).__module__])
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(task,))
    try:
        yield from in_order(
            lambda job: pool.submit(_run, job), Future.result, jobs, most=workers * _PREFETCH
        )
    except BrokenProcessPool as error:
        raise SailvitError(
            f"one of {workers} worker processes ended without a result ({error}); it may have run out of memory:"
            " try again with fewer --workers"
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
    """Results in the order of the jobs, of which at most `most` are handed out at any time."""
    waiting: deque[Handle] = deque()
    for job in jobs:
        waiting.append(submit(job))
        if len(waiting) >= most:
            yield take(waiting.popleft())
    while waiting:
        yield take(waiting.popleft())


def _start(task: Callable[[Any], Any]) -> None:
    """Prepare a process of the pool: Ctrl-C is the parent's to handle, and without a parent
    there is no more to do.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _TASK[:] = [task]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(job: Any) -> Any:
    return _TASK[0](job)

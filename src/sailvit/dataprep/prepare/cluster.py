"""Work for the machines of a Ray cluster, as `process_pool` has it for the processes of one
machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

from sailvit.core.errors import DataError
from sailvit.data.process_pool import Job, Result, in_order

_PREFETCH = 2
"""Jobs per core that are submitted before the oldest result is taken."""


def map_on_cluster(task: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """`task(job)` for every job, in their order, on the cluster that `$RAY_ADDRESS` names;
    without that variable, on this machine.

    All machines need this package, and must see the same files at the same paths.
    """
    # Ray's tasks rather than Ray Data, which has its own order and borders of blocks
    # (docs/decisions/007).
    ray = _ray()
    if not ray.is_initialized():
        # A cluster that is started here listens on this machine alone.
        own = (
            {}
            if "RAY_ADDRESS" in os.environ
            else {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
        )
        ray.init(log_to_driver=False, logging_level="error", **own)
    # Stored once: as an argument the task would be sent with every job.
    held = ray.put(task)
    run = ray.remote(_run)
    cores = int(ray.cluster_resources().get("CPU", 1))
    yield from in_order(lambda job: run.remote(held, job), ray.get, jobs, most=cores * _PREFETCH)


def _run(task: Callable[[Any], Any], job: Any) -> Any:
    return task(job)


def _ray() -> Any:
    # Ray reports usage to its makers, unless this is set before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return import_module("ray")
    except ImportError as error:
        raise DataError(
            f"--ray needs Ray, which cannot be imported ({error}): pip install 'sailvit[ray]'"
        ) from error

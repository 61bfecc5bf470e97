"""Many jobs for the machines of a Ray cluster; what `process_pool` does for the processes of
one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

from sailvit.core.errors import DataError
from sailvit.data.process_pool import Job, Result, in_order

_PREFETCH = 2
"""Jobs per core that are handed out before the oldest result is taken."""


def map_on_cluster(task: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """`task(job)` for every job, in their order, on the cluster that `$RAY_ADDRESS` names, else
    on this machine.

    All machines need this package and see the same files at the same paths.
    """
    ray = _ray()
    if not ray.is_initialized():
        # A cluster of one's own talks to this machine alone.
        own = (
            {}
            if "RAY_ADDRESS" in os.environ
            else {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
        )
        ray.init(log_to_driver=False, logging_level="error", **own)
    held = ray.put(task)
    run = ray.remote(_run)
    cores = int(ray.cluster_resources().get("CPU", 1))
    yield from in_order(lambda job: run.remote(held, job), ray.get, jobs, most=cores * _PREFETCH)


def _run(task: Callable[[Any], Any], job: Any) -> Any:
    return task(job)


def _ray() -> Any:
    # Ray reports usage to its makers unless told otherwise before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return import_module("ray")
    except ImportError as error:
        raise DataError(
            f"--ray needs Ray, which cannot be imported ({error}): pip install 'sailvit[ray]'"
        ) from error

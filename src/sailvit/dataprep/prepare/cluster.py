"""Work for the machines of a Ray cluster, as `process_pool` has it for the processes of one
machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sailvit.data.process_pool import Job, Result, in_order
from sailvit.distributed.ray_cluster import connected_ray

_PREFETCH = 2
"""Jobs per core that are submitted before the oldest result is taken."""


def map_on_cluster(task: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """`task(job)` for every job, in their order, on the cluster that `$RAY_ADDRESS` names;
    without that variable, on this machine.

    All machines need this package, and must see the same files at the same paths.
    """
    # Ray's tasks rather than Ray Data, which has its own order and borders of blocks
    # (docs/decisions/007).
    ray = connected_ray()
    # Stored once: as an argument the task would be sent with every job.
    held = ray.put(task)
    run = ray.remote(_run)
    cores = int(ray.cluster_resources().get("CPU", 1))
    yield from in_order(lambda job: run.remote(held, job), ray.get, jobs, most=cores * _PREFETCH)


def _run(task: Callable[[Any], Any], job: Any) -> Any:
    return task(job)

"""The process that downloads: requests come in as JSON lines, answers leave in the order they
are ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from sailvit.core.errors import DataError
from sailvit.data.remote.fetching import Fetcher
from sailvit.data.remote.requests import Access, CacheConfig, FetchRequest

_PREFETCH = 2
"""Files fetched at the same time that nobody waits for yet; those that are waited for all start
at once."""


def serve(config: str) -> None:
    """Works until standard input ends, which it does when the process at its other end goes
    away.
    """
    told = json.loads(config)
    asyncio.run(_serve(Fetcher(CacheConfig(**{**told, "access": Access(**told["access"])}))))


async def _serve(fetcher: Fetcher) -> None:
    requests = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(requests), sys.stdin
    )
    prefetched, running = asyncio.Semaphore(_PREFETCH), set()
    while line := await requests.readline():
        number, told = json.loads(line)
        task = asyncio.create_task(
            _fetch(fetcher, FetchRequest(**told), prefetched), name=str(number)
        )
        running.add(task)
        task.add_done_callback(_answer)
        task.add_done_callback(running.discard)


async def _fetch(fetcher: Fetcher, request: FetchRequest, prefetched: asyncio.Semaphore) -> None:
    if not request.prefetch:
        return await fetcher.fetch(request)
    async with prefetched:
        return await fetcher.fetch(request)


def _answer(task: asyncio.Task[None]) -> None:
    """Every request is answered, also after an error that nobody thought of: somebody waits for
    it.
    """
    if task.cancelled():
        return
    error = task.exception()
    said = str(error) if isinstance(error, DataError) else repr(error)
    kind = error.kind if isinstance(error, DataError) else "unreachable"
    line = json.dumps([int(task.get_name()), [said, kind] if error else None])
    os.write(sys.stdout.fileno(), line.encode() + b"\n")

"""The download process: takes requests as JSON lines and answers each when it is done."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from sailvit.core.errors import DataError
from sailvit.data.remote.fetching import Fetcher
from sailvit.data.remote.requests import Access, CacheConfig, FetchRequest

_PREFETCH = 2
"""Prefetched files that are downloaded at the same time; files that are waited for start at
once."""


def serve(config: str) -> None:
    """Works until standard input ends, as it does when the client's process ends."""
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
    """Answer the task's request, also after an unexpected error: the client waits for it."""
    if task.cancelled():
        return
    error = task.exception()
    said = str(error) if isinstance(error, DataError) else repr(error)
    kind = error.kind if isinstance(error, DataError) else "unreachable"
    line = json.dumps([int(task.get_name()), [said, kind] if error else None])
    # Not print, whose buffer would hold back the line that a worker waits for.
    os.write(sys.stdout.fileno(), line.encode() + b"\n")

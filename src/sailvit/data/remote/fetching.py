"""Fetching one file: locked, tried several times, resumed, checked, renamed when complete."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from sailvit.core.errors import DataError
from sailvit.data.remote.errors import OtherBytes, failure_of
from sailvit.data.remote.lru import PART, evict, lies_at, try_lock
from sailvit.data.remote.requests import CacheConfig, FetchRequest
from sailvit.data.remote.stores import open_store

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

    from sailvit.data.remote.stores import Store

_POLL = 0.05
"""Seconds between checks of a file that another process fetches."""
_CHUNK = 1 << 16
"""Bytes written at a time; at most so many are lost when a download breaks off."""

Value = TypeVar("Value")


@dataclass
class _Progress:
    """How far the tries for one file have come."""

    done: int = 0
    """Bytes written."""
    crc32: int = 0
    """Their checksum."""
    etag: str | None = None
    """Version of the file that they belong to; None: the server names none."""
    refused: int | None = None
    """Checksum of a whole download that had another one than requested."""

    def options(self) -> GetOptions:
        """Options of the request for the rest of the file; for all of it where no etag shows
        whether the file was replaced in between.
        """
        if not self.etag:
            self.restart()
        return {"range": {"offset": self.done}, "if_match": self.etag} if self.done else {}

    def restart(self) -> None:
        """Begin again with the first byte."""
        self.done = self.crc32 = 0


class Fetcher:
    """Fetches files into one cache."""

    def __init__(self, config: CacheConfig) -> None:
        self._config = config

    @cached_property
    def _store(self) -> Store:
        return open_store(self._config)

    async def fetch(self, request: FetchRequest) -> None:
        """Returns once the file is at its path, fetched here or by another process; DataError
        after the last try.
        """
        path = Path(request.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            async with _locked(path.with_name(path.name + PART)) as file:
                if not path.exists():
                    await self._download(request, file)
                    # Bytes before name: after a crash of the machine a file with its name is
                    # whole.
                    await asyncio.to_thread(os.fsync, file.fileno())
                    Path(file.name).rename(path)
        except OSError as error:
            raise DataError(
                f"cannot keep {request.name} in {self._config.folder} ({error.strerror}); free"
                " space there, lower the limit of the shard cache, or choose another folder",
                kind="shard cache",
            ) from error

    async def _download(self, request: FetchRequest, file: BinaryIO) -> None:
        """Fills `file`; after a failure that may pass it continues or starts over."""
        from obstore.exceptions import BaseError

        progress = _Progress()
        for tries, wait in enumerate([*request.waits, None], start=1):
            try:
                return await self._try(request, file, progress)
            except (FileNotFoundError, ConnectionError, BaseError, OtherBytes) as error:
                why = failure_of(error)
                if wait is None or why.final:
                    count = "once" if tries == 1 else f"{tries} times"
                    where = f"{self._config.root}/{request.name}"
                    raise DataError(
                        f"{where}: {why.said} (asked {count}); {why.advice}", kind=why.kind
                    ) from error
            await asyncio.sleep(wait)
        return None

    async def _try(self, request: FetchRequest, file: BinaryIO, progress: _Progress) -> None:
        """One request; OtherBytes when size or checksum are not those requested."""
        answer = await self._ask(request, progress)
        size = answer.meta["size"]
        if request.size not in (None, size):
            raise OtherBytes(f"it has {size:,} bytes, expected {request.size:,}", final=True)
        progress.etag = answer.meta["e_tag"]
        # Before its bytes arrive, so that the cache does not exceed its limit meanwhile.
        evict(Path(self._config.folder), self._config.limit - size)
        # A try that begins again must not leave bytes of the last one behind its own.
        file.truncate(progress.done)
        async for chunk in self._chunks(answer):
            file.write(chunk)
            progress.done += len(chunk)
            progress.crc32 = zlib.crc32(chunk, progress.crc32)
        file.flush()
        if request.crc32 not in (None, progress.crc32):
            self._refuse(request, progress)

    def _refuse(self, request: FetchRequest, progress: _Progress) -> None:
        """Raise OtherBytes. A wrong checksum may come from the transfer, but the same one twice
        is that of the server's file.
        """
        found, before = progress.crc32, progress.refused
        progress.refused = found
        progress.restart()
        raise OtherBytes(
            f"its crc32 is {found:08x}, expected {request.crc32:08x}", final=found == before
        )

    async def _ask(self, request: FetchRequest, progress: _Progress) -> GetResult:
        from obstore import get_async
        from obstore.exceptions import BaseError

        try:
            return await self._soon(
                get_async(self._store, request.name, options=progress.options())
            )
        except BaseError:
            # The server may be unable to continue a download, or have another version now.
            progress.restart()
            raise

    async def _chunks(self, answer: GetResult) -> AsyncIterator[bytes]:
        """The bytes as they arrive."""
        from obstore.exceptions import BaseError

        stream = aiter(answer.stream(min_chunk_size=_CHUNK))
        while True:
            try:
                chunk = await self._soon(anext(stream))
            except StopAsyncIteration:
                return
            except BaseError as error:
                raise ConnectionError("the download broke off") from error
            yield chunk

    async def _soon(self, something: Awaitable[Value]) -> Value:
        """Its value; ConnectionError when it takes too long."""
        timeout = self._config.access.timeout
        try:
            return await asyncio.wait_for(something, timeout)
        except asyncio.TimeoutError as error:
            raise ConnectionError(f"no byte came for {timeout:g} s") from error


@asynccontextmanager
async def _locked(part: Path) -> AsyncIterator[BinaryIO]:
    """A context with the partial file, open and locked; it is removed unless it was renamed."""
    while True:
        with try_lock(part) as file:
            if file is not None:
                try:
                    yield file
                finally:
                    if lies_at(file, part):
                        part.unlink()
                return
        await asyncio.sleep(_POLL)

"""`ShardCache`: local files of a root that may lie elsewhere."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from sailvit.core.errors import DataError
from sailvit.core.seeding import numpy_generator
from sailvit.data.remote.client_process import DownloadClient
from sailvit.data.remote.lru import touch
from sailvit.data.remote.requests import Access, CacheConfig, FetchRequest
from sailvit.data.remote.roots import (
    RemoteFile,
    check_root,
    checked_name,
    is_remote,
    own_file,
    verified,
)

_HOLD = 60.0
"""Seconds for which a file that could not be had is not asked for again: every record of it
would wait anew."""


class ShardCache:
    """Complete local files of a root, fetched whole when they are asked for; a plain folder's
    files are given as such.

    Any number of processes and threads of a machine may share `folder`: one fetches a shard,
    the others wait for it. It can be forked and pickled.
    """

    def __init__(
        self, root: str, folder: Path, limit: int, *, access: Access | None = None
    ) -> None:
        self._root = root.removeprefix("file://").rstrip("/") or "/"
        self._access = access or Access()
        self._folder = folder.absolute()
        self._limit = limit
        self._remote = is_remote(root)
        if self._remote:
            check_root(self._root)
        self._places: dict[RemoteFile, Path] = {}
        self._clients: dict[int, DownloadClient] = {}
        self._failed: dict[Path, tuple[float, DataError]] = {}
        self._prefetched: set[Path] = set()

    def path(self, name: str, *, size: int | None = None, crc32: int | None = None) -> Path:
        """The file, complete on this machine, of the size and checksum given; DataError when it
        cannot be had.

        Of a plain folder's file only the size is compared: reading it all would cost more than
        the checksums of its records. Open it soon: another process may need the space (`open`
        takes care of that).
        """
        shard = RemoteFile(name, size, crc32)
        if not self._remote:
            return own_file(self._root, shard)
        path = self._place(shard)
        if not touch(path):
            self._wait(shard, path)
        return path

    def open(self, name: str, *, size: int | None = None, crc32: int | None = None) -> BinaryIO:
        """The file, open for reading; it can be read to its end even if it leaves the cache
        meanwhile.
        """
        while True:
            path = self.path(name, size=size, crc32=crc32)
            try:
                return path.open("rb")
            except FileNotFoundError:  # left the cache since the line above
                continue

    def stretch(self, shard: RemoteFile, start: int, size: int) -> bytes:
        """`size` bytes of a file from byte `start` on; fewer where it ends before."""
        # Not kept open: a file that left the cache would still take its space.
        with self.open(shard.name, size=shard.size, crc32=shard.crc32) as file:
            file.seek(start)
            return file.read(size)

    def read(self, name: str, *, size: int | None = None, crc32: int | None = None) -> bytes:
        """The bytes of a small file, as the root has them now: nothing is kept of it."""
        shard = RemoteFile(checked_name(name), size, crc32)
        if not self._remote:
            path = own_file(self._root, shard)
            return verified(path.read_bytes(), path, crc32)
        with tempfile.TemporaryDirectory(prefix="sailvit-") as folder:
            path = Path(folder, "file")
            self._submit(shard, path).result()
            return path.read_bytes()

    def prefetch(self, shards: Iterable[RemoteFile]) -> None:
        """Begins to fetch the next shards, in the order of their need, and returns at once.

        Only as many as the limit holds, where a shard of unknown size counts a quarter of it.
        What fails here fails again, with its message, when it is asked for.
        """
        if not self._remote:
            return
        left = self._limit
        for shard in shards:
            path = self._place(shard)
            left -= shard.size or self._limit // 4
            if left < 0:
                return
            if not touch(path) and path not in self._prefetched:
                self._prefetched.add(path)
                future = self._submit(shard, path, prefetch=True)
                future.add_done_callback(partial(self._arrived, path))

    def __getstate__(self) -> dict[str, Any]:
        """All but what belongs to this process."""
        return {**self.__dict__, "_clients": {}, "_failed": {}, "_prefetched": set()}

    def _place(self, shard: RemoteFile) -> Path:
        """Where a shard is kept; its checksum belongs to that, so one that is replaced is not
        taken for the old one.
        """
        if place := self._places.get(shard):
            return place
        checked_name(shard.name)
        root = re.sub(r"[^A-Za-z0-9.]+", "-", self._root)[:48]
        digest = blake2b(self._root.encode(), digest_size=4).hexdigest()
        crc32 = "any" if shard.crc32 is None else f"{shard.crc32:08x}"
        size = "any" if shard.size is None else shard.size
        self._places[shard] = self._folder / f"{root}-{digest}" / f"{size}-{crc32}" / shard.name
        return self._places[shard]

    def _wait(self, shard: RemoteFile, path: Path) -> None:
        """Has the shard fetched, unless that failed a moment ago."""
        until, error = self._failed.get(path, (0.0, None))
        if error and time.monotonic() < until:
            raise DataError(str(error), kind=error.kind)
        try:
            self._submit(shard, path).result()
        except DataError as error:
            self._failed[path] = (time.monotonic() + _HOLD, error)
            raise

    def _submit(self, shard: RemoteFile, path: Path, *, prefetch: bool = False) -> Future[None]:
        config = CacheConfig(self._root, str(self._folder), self._limit, self._access)
        # One per process: after a fork the parent's answers do not come here. setdefault is
        # atomic among threads.
        client = self._clients.setdefault(os.getpid(), DownloadClient(config))
        return client.submit(
            FetchRequest(
                *shard, path=str(path), waits=_waits(self._access, shard.name), prefetch=prefetch
            )
        )

    def _arrived(self, path: Path, _: Future[None]) -> None:
        self._prefetched.discard(path)


def _waits(access: Access, name: str) -> list[float]:
    """Seconds between tries: doubling up to half a minute, each shortened at random, so that
    processes spread out.
    """
    chance = numpy_generator(os.getpid(), "remote", name).uniform(0.5, 1.0, access.tries - 1)
    return [min(access.wait * 2**n, 30.0) * float(share) for n, share in enumerate(chance)]

"""`ShardCache`: local copies of the files of a root, which may be remote."""

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
"""Seconds for which a file that could not be fetched is not asked for again: every record in it
would wait for all its tries."""


class ShardCache:
    """Complete local files of a root, fetched whole when they are asked for; the files of a
    plain folder are used where they are.

    Any number of processes and threads of a machine may share `folder`: one fetches a shard,
    the others wait for it. The cache can be forked and pickled.
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
        """The file, complete on this machine, with the size and checksum given; DataError when
        it cannot be fetched.

        Of a file in a plain folder only the size is compared: reading all of it would cost more
        than the checksums of its records. Open the file soon, as another process may evict it;
        `open` takes care of that.
        """
        shard = RemoteFile(name, size, crc32)
        if not self._remote:
            return own_file(self._root, shard)
        path = self._place(shard)
        if not touch(path):
            self._wait(shard, path)
        return path

    def open(self, name: str, *, size: int | None = None, crc32: int | None = None) -> BinaryIO:
        """The file, open for reading; it can be read to its end even if it is evicted
        meanwhile.
        """
        while True:
            path = self.path(name, size=size, crc32=crc32)
            try:
                return path.open("rb")
            except FileNotFoundError:  # evicted since the line above
                continue

    def stretch(self, shard: RemoteFile, start: int, size: int) -> bytes:
        """`size` bytes of a file from byte `start` on; fewer where it ends before."""
        # Not kept open: an evicted file would still take its space.
        with self.open(shard.name, size=shard.size, crc32=shard.crc32) as file:
            file.seek(start)
            return file.read(size)

    def read(self, name: str, *, size: int | None = None, crc32: int | None = None) -> bytes:
        """The bytes of a small file, as the root has them now: it is not cached."""
        shard = RemoteFile(checked_name(name), size, crc32)
        if not self._remote:
            path = own_file(self._root, shard)
            return verified(path.read_bytes(), path, crc32)
        with tempfile.TemporaryDirectory(prefix="sailvit-") as folder:
            path = Path(folder, "file")
            self._submit(shard, path).result()
            return path.read_bytes()

    def prefetch(self, shards: Iterable[RemoteFile]) -> None:
        """Begins to fetch the next shards, in the order in which they will be needed, and
        returns at once.

        It fetches only as many as the limit holds, where a shard of unknown size counts as a
        quarter of it. A shard that fails here fails again, with a message, when it is read.
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
        """All attributes but those that belong to this process."""
        return {**self.__dict__, "_clients": {}, "_failed": {}, "_prefetched": set()}

    def _place(self, shard: RemoteFile) -> Path:
        """The path of a shard in the cache; size and checksum are part of it, so that a
        replaced shard is not mistaken for the old one.
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
        """Fetch the shard and wait for it, unless that failed a moment ago."""
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
        # One per process: the answers to a parent's requests go to the parent. setdefault is
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
    """Seconds between tries: doubled up to half a minute, and shortened at random so that
    processes do not all ask at the same time.
    """
    chance = numpy_generator(os.getpid(), "remote", name).uniform(0.5, 1.0, access.tries - 1)
    return [min(access.wait * 2**n, 30.0) * float(share) for n, share in enumerate(chance)]

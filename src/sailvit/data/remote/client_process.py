"""The near end of the process that downloads.

A process of its own, started by exec: obstore's threads do not survive a fork, and after one in
the middle of its work a forked loader worker would hang. It also keeps checksums and writing
out of the worker's Python.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from typing import IO

from sailvit.core.errors import DataError
from sailvit.data.remote.requests import CacheConfig, FetchRequest

_START = (
    "import sys; sys.path[:] = sys.argv[2:];"
    " from sailvit.data.remote.server_process import serve; serve(sys.argv[1])"
)
"""Run with `-I`, so that nothing in the current folder is taken for a library; the path is this
process's own."""


class DownloadClient:
    """Takes requests from any thread of one process; it starts with the first request and again
    should it ever die.
    """

    def __init__(self, config: CacheConfig) -> None:
        self._command = [sys.executable, "-I", "-c", _START, json.dumps(asdict(config)), *sys.path]
        self._lock = threading.Lock()
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[int, Future[None]] = {}

    def submit(self, request: FetchRequest) -> Future[None]:
        """Done when the file is there; fails with the DataError that says why it is not."""
        future: Future[None] = Future()
        with self._lock:
            stdin = self._stdin()
            number = next(self._numbers)
            self._waiting[number] = future
            # A process that died just now fails this request when its output ends.
            with suppress(BrokenPipeError):
                stdin.write(json.dumps([number, asdict(request)]).encode() + b"\n")
        return future

    def _stdin(self) -> IO[bytes]:
        """Where requests go; starts the process if there is none."""
        if self._process is None or self._process.poll() is not None:
            # Unbuffered, since a fork would copy what waits in a buffer; in a session of its
            # own, so that Ctrl-C reaches only the process that can explain it.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
            self._waiting = {}
            listener = threading.Thread(
                target=_listen,
                args=(self._process, self._waiting, self._lock),
                name="shard cache",
                daemon=True,
            )
            listener.start()
            weakref.finalize(self, _end, self._process)
        assert self._process.stdin is not None
        return self._process.stdin


def _listen(
    process: subprocess.Popen[bytes], waiting: dict[int, Future[None]], lock: threading.Lock
) -> None:
    """Hands answers to those who wait for them; knows no DownloadClient, so that one can go out
    of use.
    """
    assert process.stdout is not None
    with process.stdout as answers:
        for line in answers:
            number, error = json.loads(line)
            future = waiting.pop(number)
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(DataError(error[0], kind=error[1]))
    with lock:
        lost, code = list(waiting.values()), process.wait()
        waiting.clear()
    for future in lost:
        future.set_exception(
            DataError(
                f"the process that downloads ended with code {code}; its last words are above",
                kind="unreachable",
            )
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """In a fork of its parent this does nothing: the process is no child there."""
    if process.poll() is None:
        process.kill()
        process.wait()

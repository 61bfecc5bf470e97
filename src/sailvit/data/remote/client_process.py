"""The client of the download process (`server_process`).

Downloads run in a process of its own, started by exec, as obstore's threads do not survive a
fork: a loader worker forked after obstore was used would hang. It also keeps checksums and
writing out of the worker's Python. It starts in 0.15 s and takes some 36 MB.
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
"""Run with `-I`, so that no file in the current folder is imported as a library; `sys.path` is
that of this process."""


class DownloadClient:
    """Takes requests from any thread of one process; starts the download process with the first
    request, and again if it has died.
    """

    def __init__(self, config: CacheConfig) -> None:
        self._command = [sys.executable, "-I", "-c", _START, json.dumps(asdict(config)), *sys.path]
        self._lock = threading.Lock()
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[int, Future[None]] = {}

    def submit(self, request: FetchRequest) -> Future[None]:
        """A future that is done when the file is there, or fails with a DataError."""
        future: Future[None] = Future()
        with self._lock:
            stdin = self._stdin()
            number = next(self._numbers)
            self._waiting[number] = future
            # If the process died just now, `_listen` fails this request.
            with suppress(BrokenPipeError):
                stdin.write(json.dumps([number, asdict(request)]).encode() + b"\n")
        return future

    def _stdin(self) -> IO[bytes]:
        """The pipe for requests; starts the process if there is none."""
        if self._process is None or self._process.poll() is not None:
            # Unbuffered, since a fork would copy the buffer and send its requests twice; in a
            # session of its own, so that Ctrl-C reaches only the process that handles it.
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
    """Passes answers to the futures that wait for them. It holds no DownloadClient, so that one
    can be garbage-collected while this thread runs.
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
                f"the process that downloads ended with code {code}; its last output is above",
                kind="unreachable",
            )
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process. In a fork this does nothing, as the process is not the fork's child."""
    if process.poll() is None:
        process.kill()
        process.wait()

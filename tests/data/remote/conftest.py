"""A web server on localhost that fails as it is told, and a cache that asks it without losing time."""

from __future__ import annotations

import http.server
import logging
import threading
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sailvit.data.remote.cache import ShardCache
from sailvit.data.remote.requests import Access


class Trouble:
    """What happens to requests, and which came."""

    body = bytes(range(256)) * 2000
    """What the server has under every name; 512,000 bytes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.plans: dict[str, list[str]] = {}
        self.url = ""

    def plan(self, name: str, *steps: str) -> None:
        """What the requests for `name` meet, one after another; the last goes on for ever."""
        self.plans[f"/{name}"] = list(steps)

    def next(self, path: str) -> str:
        steps = self.plans.get(path, ["fine"])
        return steps.pop(0) if len(steps) > 1 else steps[0]

    @property
    def counts(self) -> Counter[str]:
        return Counter(path for path, _ in self.asked)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    trouble: Trouble

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.trouble.asked.append((self.path, wanted))
        step = self.trouble.next(self.path)
        if self.headers.get("If-Match", self._tag()) != self._tag():
            step = "412"
        if step.isdigit():
            self.send_error(int(step))
        elif step == "elsewhere":
            self._head(302, 0, Location="/elsewhere/file")
        else:
            self._send(step, wanted)

    def _send(self, step: str, wanted: str | None) -> None:
        body = self.trouble.body
        if step == "flipped":
            body = body[:1000] + bytes([body[1000] ^ 1]) + body[1001:]
        at = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and step != "whole" else 0
        ranged = {"Content-Range": f"bytes {at}-{len(body) - 1}/{len(body)}"} if at else {}
        tag = {} if "untagged" in step else {"ETag": self._tag()}
        self._head(206 if at else 200, len(body) - at, **ranged, **tag)
        if step.startswith("cut"):
            self.wfile.write(body[at : at + (len(body) - at) // 2])
            self.close_connection = True
            if step == "cut and replaced":
                self.trouble.body = bytes(600_000)
            return
        if step == "stuck":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(1.5)
            return
        if step == "slow":
            for start in range(at, len(body), 1 << 16):
                time.sleep(0.03)
                self.wfile.write(body[start : start + (1 << 16)])
            return
        self.wfile.write(body[at:])

    def _tag(self) -> str:
        return f'"{zlib.crc32(self.trouble.body)}"'

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Quiet: clients leave in the middle, as they are meant to."""


@pytest.fixture
def server() -> Iterator[Trouble]:
    """A running server; `server.url` is its root."""
    trouble = Trouble()
    handler = type("Handler", (_Handler,), {"trouble": trouble})
    running = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    trouble.url = f"http://127.0.0.1:{running.server_address[1]}"
    yield trouble
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def open_cache(server: Trouble, tmp_path: Path) -> Callable[..., ShardCache]:
    """Makes a cache of the server's files that waits milliseconds between tries."""

    def make(limit: int = 10**9, *, tries: int = 3, timeout: float = 5.0) -> ShardCache:
        return ShardCache(
            server.url,
            tmp_path / "cache",
            limit,
            access=Access(tries=tries, wait=0.01, timeout=timeout),
        )

    return make


class Bucket:
    """A bucket of an S3-compatible server."""

    url = "s3://shards/set"

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.endpoint = endpoint
        self.asked: list[str] = []
        self.fail_every: int | None = None
        self._client = boto3.client("s3", endpoint_url=endpoint)
        self._client.create_bucket(Bucket="shards")

    def put(self, name: str, content: bytes, *, public: bool = False) -> None:
        access = "public-read" if public else "private"
        self._client.put_object(Bucket="shards", Key=f"set/{name}", Body=content, ACL=access)

    def remove(self, name: str) -> None:
        self._client.delete_object(Bucket="shards", Key=f"set/{name}")
        self.asked.clear()

    def fails(self, path: str) -> bool:
        """Whether the request that just came is one to fail."""
        self.asked.append(path)
        return self.fail_every is not None and len(self.asked) % self.fail_every == 0


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, with the environment set so that it is found."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = DomainDispatcherApplication(create_backend_app)
    running: list[Bucket] = []

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if running and running[0].fails(environ["PATH_INFO"]):
            start("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return moto(environ, start)

    listening = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{listening.server_port}"
    values = {
        "ACCESS_KEY_ID": "me",
        "SECRET_ACCESS_KEY": "secret",
        "DEFAULT_REGION": "us-east-1",
        "ENDPOINT_URL": endpoint,
    }
    for key, value in values.items():
        monkeypatch.setenv(f"AWS_{key}", value)
    # moto keeps its buckets in this process, also those of the test before.
    urllib.request.urlopen(f"{endpoint}/moto-api/reset", data=b"").close()
    running.append(Bucket(endpoint))
    yield running[0]
    listening.shutdown()
    thread.join()

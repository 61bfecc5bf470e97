"""A server of a tiny model in a thread, and requests to it."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from openai import OpenAI
from PIL import Image

from sailvit.inference.model import RunModel
from sailvit.inference.serving.app import make_app
from sailvit.inference.serving.limits import Limits

NAME = "tiny"


def uri(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def asked(text: str, *images: str) -> list[dict[str, Any]]:
    pieces = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return [{"role": "user", "content": [*pieces, {"type": "text", "text": text}]}]


class Running:
    """A server that answers, and ways to ask it."""

    def __init__(self, port: int, app: Any) -> None:
        self.port = port
        self.app = app
        self.url = f"http://127.0.0.1:{port}"

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def send(
        self,
        body: bytes | dict[str, Any] | None,
        path: str = "/v1/chat/completions",
        **headers: str,
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a bare request; without a body it is a GET."""
        if isinstance(body, dict):
            body = json.dumps({"model": NAME, "messages": asked("what?"), **body}).encode()
        given = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        request = urllib.request.Request(self.url + path, body, given)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as reply:
                content = reply.read()
                return reply.status, json.loads(content) if content[:1] == b"{" else {
                    "text": content.decode()
                }
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def metric(self, line: str) -> float:
        """A number among the metrics."""
        text = self.send(None, "/metrics")[1]["text"]
        found = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(line + " ")]
        return float(found[0]) if found else 0.0

    def quiet(self) -> bool:
        """Whether no request is open, after a while at most."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if self.metric("sailvit_open_requests") == 0 == self.metric("sailvit_waiting"):
                return True
            time.sleep(0.05)
        return False


@contextmanager
def running(model: RunModel, limits: Limits | None = None, **options: Any) -> Iterator[Running]:
    app = make_app(model, NAME, limits or Limits(), **options)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(
        app, port=port, log_level="warning", lifespan="on", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    assert server.started
    try:
        yield Running(port, app)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()

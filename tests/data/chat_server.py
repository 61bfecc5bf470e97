"""A chat server on this machine that answers as told, badly where told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[dict[str, Any]], str]


class ChatServer:
    """Answers with `say(body)`, but the n-th request for one question gets the n-th of `faults`."""

    def __init__(self, say: Say, faults: list[str] | None = None) -> None:
        self.say = say
        self.faults = faults or []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.most_at_once = 0
        self._at_once = 0
        self._asked: dict[str, int] = {}
        self._lock = threading.Lock()
        # A class of its own, so that a test may change how this one server answers.
        self.handler = type("OwnHandler", (Handler,), {})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self._server.chat = self
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def note(self, handler: Handler, body: dict[str, Any]) -> None:
        with self._lock:
            self.bodies.append({"path": handler.path, **body})
            self.keys.append(handler.headers.get("Authorization"))

    @contextmanager
    def thinking(self) -> Iterator[None]:
        """Count a request until it is answered: once the answer is out, the client may ask again."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        yield
        with self._lock:
            self._at_once -= 1

    def fault_of(self, text: str) -> str:
        with self._lock:
            count = self._asked[text] = self._asked.get(text, -1) + 1
        return self.faults[count] if count < len(self.faults) else "ok"


FAULTS = {
    "not json": {"body": b"<html>gateway</html>"},
    "no choices": {"body": b'{"choices": []}'},
    "no text": {"body": b'{"choices": [{"message": {"content": null}}]}'},
    "cut": {"body": b'{"choices": [', "length": 500},
    "redirect": {
        "body": b"",
        "status": 302,
        "headers": {"Location": "http://127.0.0.1:9/elsewhere"},
    },
    "429": {"body": b"busy", "status": 429, "headers": {"Retry-After": "0"}},
}


class Handler(BaseHTTPRequestHandler):
    """Takes one request."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.chat.note(self, json.loads(raw))
        self.behave(self.server.chat.fault_of(raw.decode()), json.loads(raw))

    def behave(self, fault: str, body: dict[str, Any]) -> None:
        if fault in FAULTS:
            self.give(**FAULTS[fault])
        elif fault.isdigit():
            self.give(b"busy", int(fault))
        elif fault == "hang up":
            self.close_connection = True
        else:
            time.sleep(0.6 if fault == "slow" else 0)
            self.answer(body)

    def answer(self, body: dict[str, Any]) -> None:
        with self.server.chat.thinking():
            message = {"role": "assistant", "content": self.server.chat.say(body)}
        usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
        self.give(
            json.dumps({"id": "x", "choices": [{"message": message}], "usage": usage}).encode()
        )

    def give(
        self, body: bytes, status: int = 200, headers: dict[str, str] | None = None, length: int = 0
    ) -> None:
        # Whoever has given up waiting is gone.
        with suppress(OSError):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def text_of(body: dict[str, Any]) -> str:
    """The text of a request's last message."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(p.get("text", "") for p in content)

"""The application: OpenAI's chat API over one model."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from sailvit.inference.model import RunModel
from sailvit.inference.serving.answering import Answers
from sailvit.inference.serving.batching import Batcher
from sailvit.inference.serving.limits import Admission, Limits, RefusedError, too_large
from sailvit.inference.serving.metrics import Metrics
from sailvit.inference.serving.replies import Reply, error_body, model_body
from sailvit.inference.serving.requests import read_request

_CODES = {404: "not_found", 405: "method_not_allowed"}
_LOCAL = ("localhost", "127.0.0.1", "::1")
"""Names under which a server of this machine is reached."""


class Service:
    """One model, and the requests that wait for it."""

    def __init__(
        self, model: RunModel, name: str, limits: Limits, *, key: str | None, local: bool
    ) -> None:
        self._generation = model.generation
        self._name = name
        self._limits = limits
        self._key = key
        self._local = local
        self._created = int(time.time())
        self._admission = Admission(limits)
        self._reading = asyncio.Semaphore(4)
        self.batcher = Batcher(model.generation, limits, self._batched)
        """What answers."""
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: self._admission.requests)
        """What is counted."""

    def _batched(self, size: int) -> None:
        self.metrics.batches.observe(size)

    def authorize(self, request: Request) -> None:
        """Let a request pass that was sent to this server, with its key.

        Raises:
            RefusedError: it was sent to another name, or has no key or another one.
        """
        # A page elsewhere whose name was made to point here would be let in by the browser.
        if self._local and request.url.hostname not in _LOCAL:
            raise RefusedError(400, "the request names another host", code="invalid_host")
        if self._key is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        # As long whether the first character is wrong or the last.
        same = secrets.compare_digest(given.strip().encode(), self._key.encode())
        if kind.lower() != "bearer" or not same:
            raise RefusedError(401, "no API key, or a wrong one", code="invalid_api_key")

    def models(self) -> dict[str, Any]:
        """The list of models, which is one."""
        return {"object": "list", "data": [model_body(self._name, self._created)]}

    def model(self, name: str) -> dict[str, Any]:
        """The model.

        Raises:
            RefusedError: it has another name.
        """
        if name != self._name:
            raise RefusedError(404, f"no model {name[:80]!r}", code="model_not_found")
        return model_body(self._name, self._created)

    async def complete(self, request: Request) -> Response:
        """The answer to a request, whole or as a stream."""
        began = time.perf_counter()
        size = request.headers.get("content-length", "")
        held = self._admission.enter(int(size) if size.isdigit() else None)
        streams = False

        answers: Answers | None = None

        def leave() -> None:
            """The request has ended, in whatever way."""
            self._admission.leave(held)
            if answers is not None:
                self.metrics.tokens.labels("prompts").inc(len(answers.request.prompt))
                self.metrics.tokens.labels("answers").inc(sum(answers.made))
            self.metrics.seconds.observe(time.perf_counter() - began)

        try:
            answers, reply = await self._begun(request)
            streams = answers.request.stream
            if streams:
                return _Stream(answers, reply, leave)
            return JSONResponse(reply.whole(await _unless_gone(request, answers)))
        finally:
            if not streams:
                leave()

    async def _begun(self, request: Request) -> tuple[Answers, Reply]:
        if not request.headers.get("content-type", "").startswith("application/json"):
            # Pages of other sites may send other types without being asked by the browser.
            raise RefusedError(400, "expected Content-Type: application/json", code="invalid_type")
        body = await _body(request, self._limits)
        # A few at a time: each decodes images.
        async with self._reading:
            asked = await asyncio.to_thread(
                read_request, body, self._generation, self._name, self._limits
            )
        answers = Answers(asked, self._generation, self.batcher)
        return answers, Reply(self._name, len(asked.prompt))


class _Stream(StreamingResponse):
    """A stream of events that lets go of its answers in the end, also if it never began."""

    def __init__(self, answers: Answers, reply: Reply, left: Callable[[], object]) -> None:
        # Proxies would otherwise keep pieces back.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(answers.events(reply), 200, headers, "text/event-stream")
        self._answers = answers
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.cancel()
            self._left()


async def _body(request: Request, limits: Limits) -> bytes:
    async def read() -> bytes:
        """All of it, unless it is too much."""
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > limits.body:
                raise too_large(limits)
        return bytes(content)

    try:
        return await asyncio.wait_for(read(), limits.read_seconds)
    except asyncio.TimeoutError as error:
        raise RefusedError(408, "the request did not arrive in time", code="timeout") from error
    except ClientDisconnect as error:
        raise RefusedError(499, "the client is gone", code="client_gone") from error


async def _unless_gone(request: Request, answers: Answers) -> list[tuple[str, str, int]]:
    """The answers, unless the client goes away first."""
    made = asyncio.ensure_future(answers.whole())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({made, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not made.done():
            raise RefusedError(499, "the client is gone", code="client_gone")
        return made.result()
    finally:
        answers.cancel()
        for task in (made, gone):
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def make_app(
    model: RunModel, name: str, limits: Limits, *, key: str | None = None, local: bool = True
) -> FastAPI:
    """The application of a model called `name`.

    With `key` requests need it. `local`: it is reached from this machine alone, and refuses
    requests that were sent to another name.
    """
    service = Service(model, name, limits, key=key, local=local)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        """The time in which the server answers."""
        # In threads: the start tries out the language, and the end waits for a batch.
        await asyncio.to_thread(service.batcher.start)
        yield
        await asyncio.to_thread(service.batcher.close)

    # No pages of documentation: they would load scripts from elsewhere.
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_routes(app, service)
    _add_errors(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        """The answer to a conversation."""
        service.authorize(request)
        response = await service.complete(request)
        service.metrics.requests.labels("200").inc()
        return response

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        """The served model as a list."""
        service.authorize(request)
        return JSONResponse(service.models())

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        """The served model."""
        service.authorize(request)
        return JSONResponse(service.model(name))

    @app.get("/health")
    async def health() -> Response:
        """Whether requests are answered; needs no key."""
        alive = service.batcher.alive
        return JSONResponse({"status": "ok" if alive else "ending"}, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Counts and times."""
        service.authorize(request)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_errors(app: FastAPI, service: Service) -> None:
    def told(status: int, message: str, code: str) -> JSONResponse:
        """An error, counted."""
        service.metrics.requests.labels(str(status)).inc()
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(status)
        return JSONResponse(error_body(status, message, code), status, headers)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        """A refusal in OpenAI's form."""
        return told(error.status, str(error), error.code)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        """A path or method that is not served."""
        return told(error.status_code, str(error.detail), _CODES.get(error.status_code, "error"))

    @app.exception_handler(500)
    async def failed(_: Request, error: BaseException) -> Response:
        """A mistake of ours, without its details."""
        del error
        return told(500, "the server failed", "server_error")

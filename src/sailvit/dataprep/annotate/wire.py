"""OpenAI-style chat completions: the request's body for a record, and the reply in a response's
body.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from sailvit.core.config import Config
from sailvit.core.recipe import Count, NotNegative, Positive
from sailvit.core.records import IMAGE_MARK, ImageLike, Record, Turn
from sailvit.dataprep.annotate.replies import Reply
from sailvit.dataprep.llava_rows import portable


class EndpointConfig(Config):
    """The server of a model and how it is asked."""

    url: str = Field(pattern=r"^https?://")
    """Base address, as in `http://localhost:8000/v1`; `/chat/completions` is added."""
    model: str
    """The model's name on that server."""
    key_variable: str | None = None
    """Name of the environment variable that holds the key; None: no key is sent. The key itself
    is never written."""
    concurrency: Count = 8
    """Requests sent at the same time."""
    timeout: Positive = 120.0
    """Seconds after which a request is given up."""
    attempts: Count = 6
    """Most requests per record."""
    backoff: Positive = 1.0
    """Seconds before the second attempt; doubled for each further one, up to a minute."""
    temperature: NotNegative = 0.0
    """Sampling temperature; 0 is greedy decoding."""
    longest: Count = 512
    """Most tokens of an answer."""

    @property
    def identity(self) -> str:
        """Settings that replies depend on, as a key of the cache."""
        return json.dumps([self.url, self.model, self.temperature, self.longest])


class _Message(BaseModel):
    """A message of the model."""

    content: str
    """Its text."""


class _Choice(BaseModel):
    """One of the replies that a response may hold."""

    message: _Message
    """The reply."""


class _Tokens(BaseModel):
    """The server's token counts."""

    prompt_tokens: int = 0
    """Tokens of the request."""
    completion_tokens: int = 0
    """Tokens of the reply."""


class _Completion(BaseModel):
    """A response's body; its other fields are ignored."""

    choices: list[_Choice] = Field(min_length=1)
    """Replies; the first one is used."""
    usage: _Tokens | None = None
    """Token counts; None: the server gives none."""


def request_body(config: EndpointConfig, record: Record) -> dict[str, Any]:
    """The body of a request to answer a record's last turn, with images as data URIs at their
    marks.
    """
    images = iter(record.images)
    messages = [{"role": turn.role, "content": _content(turn, images)} for turn in record.turns]
    settings = {"temperature": config.temperature, "max_tokens": config.longest}
    return {"model": config.model, "messages": messages, **settings}


def read_reply(body: bytes) -> Reply:
    """The reply in a response's body; ValueError if the body is no completion."""
    try:
        found = _Completion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise ValueError(f"{where}: {first['msg']}") from error
    usage = found.usage or _Tokens()
    return Reply(
        found.choices[0].message.content,
        prompt_tokens=usage.prompt_tokens,
        answer_tokens=usage.completion_tokens,
    )


def _content(turn: Turn, images: Iterator[ImageLike]) -> str | list[dict[str, Any]]:
    """A turn's text; if it has images, a list of pieces of text and images."""
    if IMAGE_MARK not in turn.text:
        return turn.text
    pieces: list[dict[str, Any]] = []
    for index, text in enumerate(turn.text.split(IMAGE_MARK)):
        if index:
            pieces.append({"type": "image_url", "image_url": {"url": _data_uri(next(images))}})
        if text.strip():
            pieces.append({"type": "text", "text": text.strip("\n")})
    return pieces


def _data_uri(image: ImageLike) -> str:
    data, kind = portable(image)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

"""Answers and errors in the form of OpenAI's chat API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's words for kinds of errors; others are errors of the request below 500, of the server
above."""


def error_body(status: int, message: str, code: str) -> dict[str, Any]:
    """An error."""
    usual = "invalid_request_error" if status < 500 else "server_error"
    kind = _KINDS.get(status, usual)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def model_body(name: str, created: int) -> dict[str, Any]:
    """A model in a list of models."""
    return {"id": name, "object": "model", "created": created, "owned_by": "sailvit"}


@dataclass(frozen=True)
class Reply:
    """The reply to one request."""

    model: str
    """Name of the model."""
    prompt_tokens: int
    """Tokens of the prompt, visual tokens included."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    """Its name."""
    created: int = field(default_factory=lambda: int(time.time()))
    """When it began, in seconds since 1970."""

    def usage(self, made: int) -> dict[str, int]:
        """The count of tokens, with `made` tokens of all answers."""
        total = self.prompt_tokens + made
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": total,
        }

    def whole(self, answers: Sequence[tuple[str, str, int]]) -> dict[str, Any]:
        """The reply with every answer: its text, why it ended, and its tokens."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": reason,
            }
            for index, (text, reason, _) in enumerate(answers)
        ]
        usage = self.usage(sum(made for _, _, made in answers))
        return {**self._head("chat.completion"), "choices": choices, "usage": usage}

    def chunk(self, index: int, delta: dict[str, str], reason: str | None = None) -> bytes:
        """A piece of an answer as an event of a stream."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def last(self, made: int) -> bytes:
        """The event that counts tokens."""
        head = self._head("chat.completion.chunk")
        return event({**head, "choices": [], "usage": self.usage(made)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def event(value: dict[str, Any]) -> bytes:
    """A value as an event of a stream."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
"""The end of a stream."""

"""Requests of OpenAI's chat API as prompts and choices of tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sailvit.core.errors import DataError
from sailvit.core.records import Record
from sailvit.inference.conversation import conversation
from sailvit.inference.generation import Generation, Prompt
from sailvit.inference.model import LONGEST
from sailvit.inference.serving.limits import Limits, RefusedError
from sailvit.inference.serving.media import read_media
from sailvit.inference.serving.rows import Choice

_NOTHING: tuple[Any, ...] = (0, False, "", "none", "auto", {}, [], {"type": "text"}, ["text"])
"""Values of unknown keys that ask for nothing beyond a text."""
_USUAL: dict[str, Any] = {
    **dict.fromkeys(("repetition_penalty", "length_penalty", "best_of"), 1),
    **dict.fromkeys(("skip_special_tokens", "spaces_between_special_tokens"), True),
    "add_generation_prompt": True,
}
"""Values of single keys that ask for what is done anyway; no other value of theirs does."""
_IDLE = (
    *("user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention"),
)
"""Keys that change nothing about an answer."""
_MOST_STOPS = 16


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False
    """Whether a last chunk counts tokens."""


class CompletionOptions(BaseModel):
    """What is read of a request; other keys are refused unless they change nothing."""

    # OpenAI's clients send keys that change no answer; but a number as text is a mistake of
    # theirs.
    model_config = ConfigDict(extra="ignore", strict=True)
    model: str
    """Name of the served model."""
    messages: list[dict[str, Any]]
    """The conversation."""
    stream: bool = False
    """Whether the answer comes in pieces."""
    stream_options: StreamOptions | None = None
    """Options of the stream."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of the answer, by its older name."""
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of the answer."""
    n: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of answers."""
    stop: str | list[str] = []
    """Texts that end the answer."""
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0
    """Sampling's temperature; 0, also where OpenAI's default is 1, is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the likeliest tokens to draw from."""
    top_k: Annotated[int, Field(ge=-1)] = 0
    """Number of the likeliest tokens to draw from; 0 and -1: all."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Taken off the scores of tokens that are in the answer."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """The same for each time that they are."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Seed of sampling."""


@dataclass(frozen=True)
class Request:
    """A request that can be answered."""

    prompt: Prompt
    """What the answers are generated from."""
    choice: Choice
    """How their tokens are chosen."""
    count: int
    """Number of answers."""
    stream: bool
    """Whether they come in pieces."""
    usage: bool
    """Whether a stream ends with a count of tokens."""


def read_request(body: bytes, generation: Generation, name: str, limits: Limits) -> Request:
    """The request of a body for the model called `name`; images are decoded to see that they
    can be.

    Raises:
        RefusedError: it cannot be answered.
    """
    # Clients send null for what they leave open.
    given = {key: value for key, value in _json(body).items() if value is not None}
    try:
        values = CompletionOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        missing = 400 if first["type"] == "missing" else 422
        raise RefusedError(missing, f"`{where}` is not right: {first['msg']}") from error
    if values.model != name:
        raise RefusedError(
            404, f"no model {values.model[:80]!r}; this server has {name!r}", code="model_not_found"
        )
    # Whatever else a client asks for would silently be left out.
    for key in given.keys() - CompletionOptions.model_fields.keys() - {*_IDLE}:
        if given[key] not in ((_USUAL[key],) if key in _USUAL else _NOTHING):
            raise RefusedError(400, f"`{key[:80]}` is not supported", code="unsupported_parameter")
    return Request(
        _prompt(values, generation, limits),
        _choice(values, limits),
        values.n,
        values.stream,
        bool(values.stream_options and values.stream_options.include_usage),
    )


def _json(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON ({error})", code="invalid_json") from error
    if not isinstance(given, dict):
        raise RefusedError(400, "the body is no JSON object", code="invalid_json")
    return given


def _prompt(values: CompletionOptions, generation: Generation, limits: Limits) -> Prompt:
    seen = 0

    def read(value: Any) -> Any:
        """The image that a piece names, unless it is one too many."""
        nonlocal seen
        seen += 1
        if seen > limits.images:
            raise RefusedError(
                413, f"more than {limits.images} images; send fewer", code="too_many_images"
            )
        return read_media(value, limits)

    try:
        record = conversation(values.messages, read_image=read)
        _refuse_ends(record, generation)
        prompt = generation.prompt(record)
    except DataError as error:
        raise RefusedError(400, str(error), code="invalid_messages") from error
    if len(prompt) > limits.prompt_tokens:
        raise RefusedError(
            400,
            f"the prompt has {len(prompt):,} tokens; at most {limits.prompt_tokens:,} are taken",
            code="context_length_exceeded",
        )
    return prompt


def _refuse_ends(record: Record, generation: Generation) -> None:
    """RefusedError for a text with a token that ends turns: what follows would be read as a turn
    of somebody else's, such as the system's.
    """
    for token in generation.tokenizer.convert_ids_to_tokens(generation.ends):
        special = token in generation.tokenizer.all_special_tokens
        if special and any(token in turn.text for turn in record.turns):
            raise RefusedError(
                400,
                f"a message holds {token!r}, which ends a turn; leave it out",
                code="invalid_messages",
            )


def _choice(values: CompletionOptions, limits: Limits) -> Choice:
    usual = min(LONGEST, limits.answer_tokens)
    longest = values.max_completion_tokens or values.max_tokens or usual
    if longest > limits.answer_tokens:
        raise RefusedError(
            400, f"{longest:,} tokens are asked for; at most {limits.answer_tokens:,} are made"
        )
    stops = [values.stop] if isinstance(values.stop, str) else values.stop
    if len(stops) > _MOST_STOPS or not all(stops):
        raise RefusedError(
            422, f"`stop` is not right: expected at most {_MOST_STOPS} texts, none empty"
        )
    return Choice(
        longest=longest,
        temperature=values.temperature,
        top_p=values.top_p,
        top_k=max(0, values.top_k),
        presence=values.presence_penalty,
        frequency=values.frequency_penalty,
        seed=values.seed,
        stops=tuple(stops),
    )

"""pydantic's validation errors as sentences: the setting, what was found, what was expected,
and the nearest right name.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_PATTERNS = {
    "^[A-Za-z0-9._-]+$": "letters, digits and . _ - alone, as it names a file",
    "^[A-Za-z0-9_-]+$": "letters, digits and _ - alone, as it names a folder",
}
"""What patterns of texts mean, in words."""
Location = tuple[str | int, ...]

RENAMED = {
    "watch": "monitoring",
    "watch.report": "monitoring.loggers",
    "monitoring.report": "monitoring.loggers",
}
"""Settings by the name that they had in earlier versions, with the name of today."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the closest of `known` and lists them all."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return (
        f"did you mean {close[0]}? " if close else ""
    ) + f"allowed: {', '.join(names) or 'none'}"


def explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line per place that is wrong, each starting with the dotted path that `--set` takes."""
    found: dict[Location, list[Mapping[str, Any]]] = {}
    for problem in error.errors(include_url=False):
        found.setdefault(_location(problem["loc"]), []).append(problem)
    # pydantic reports every branch of a union; the one that got furthest is the one meant.
    places = [
        place
        for place in found
        if not any(len(p) > len(place) and p[: len(place)] == place for p in found)
    ]
    return [
        f"{'.'.join(map(str, place)) or 'recipe'}: {_sentence(place, found[place], root)}"
        for place in places
    ]


def _location(raw: Location) -> Location:
    # pydantic adds the branch of a union (`dict[str,...]`) and `[key]` for a mapping's key;
    # neither is in the file.
    return tuple(item for item in raw if not (isinstance(item, str) and "[" in item))


def _sentence(place: Location, problems: Sequence[Mapping[str, Any]], root: type[BaseModel]) -> str:
    first = problems[0]
    if first["type"] == "extra_forbidden":
        if now := RENAMED.get(".".join(map(str, place))):
            return f"this setting is now called `{now}`; rename it"
        return f"unknown key; {nearest(str(place[-1]), _fields_beside(place, root))}"
    if first["type"] == "missing":
        return "missing; give it a value"
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    expected = " or ".join(
        dict.fromkeys(str(p["msg"]).removeprefix("Input should be ") for p in problems)
    )
    # pydantic lists the values of a Literal in one text: 'a', 'b' or 'c'.
    choices = (
        str(first.get("ctx", {}).get("expected", ""))
        .replace(" or ", ", ")
        .replace("'", "")
        .split(", ")
    )
    if first["type"] == "string_pattern_mismatch":
        expected = _PATTERNS.get(first["ctx"]["pattern"], expected)
    hint = difflib.get_close_matches(str(first["input"]), choices, n=1)
    more = f"; did you mean {hint[0]}?" if hint else ""
    if first["type"] == "string_type" and isinstance(first["input"], bool | int | float):
        # YAML reads `off` and `no` as false, and `0.5` as a number.
        more = "; YAML does not take this word for text: put it in quotes"
    return f"found {_short(first['input'])}, expected {expected}{more}"


def _short(value: Any) -> str:
    kind = {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value))
    return kind or f"{value!r} ({type(value).__name__})"[:120]


def _fields_beside(place: Location, root: type[BaseModel]) -> list[str]:
    annotation: Any = root
    for item in place[:-1]:
        annotation = _step(annotation, item)
    model = _model_in(annotation)
    return list(model.model_fields) if model else []


def _step(annotation: Any, item: str | int) -> Any:
    """The type found under key or index `item` of a value of type `annotation`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (
            annotation.model_fields[str(item)].annotation
            if str(item) in annotation.model_fields
            else None
        )
    if get_origin(annotation) in (dict, list, tuple):
        return get_args(annotation)[-1]
    return next((inner for branch in get_args(annotation) if (inner := _step(branch, item))), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (dict, list, tuple):
        return None
    return next((m for branch in typing.get_args(annotation) if (m := _model_in(branch))), None)

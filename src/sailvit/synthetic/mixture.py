"""What all drawn sources share: named shares in their options, and the error for options that
do not hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from sailvit.core.config import Config
from sailvit.core.errors import DataError

Options = TypeVar("Options", bound=Config)


def named_shares(value: Any, known: Collection[str], lacks: str) -> Any:
    """Shares by name; a bare name or a list of names stands for equal shares.

    ValueError, which begins with `lacks`, for a name that is not known; other types pass, as
    the field's own check refuses them.
    """
    names = [value] if isinstance(value, str) else value
    shares = dict.fromkeys(names, 1.0) if isinstance(names, list | tuple) else names
    for name in shares if isinstance(shares, Mapping) else ():
        if name not in known:
            near = get_close_matches(str(name), known, n=1) or [", ".join(known)]
            raise ValueError(f"{lacks} {name!r}; write {near[0]}")
    return shares


def drawn_options(kind: type[Options], values: Mapping[str, Any], what: str) -> Options:
    """The options of a drawn source; DataError with all that does not hold."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"options of the {what} do not hold: {problems}") from error

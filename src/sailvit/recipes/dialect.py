"""The YAML of recipes: what PyYAML reads, but `1e-4` is a number, keys are texts, and a key given
twice is an error.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from sailvit.core.errors import RecipeError

FLOAT_TAG, TEXT_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:str"
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "null", "timestamp")}
"""What YAML takes words for that are written without quotes."""
EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z")
"""YAML 1.1 asks for a dot and a signed exponent (`1.0e-4`) and reads every other form as a
string."""

UNICODE_BREAK = re.compile("[\x85\u2028\u2029]")


def _resolvers(parent: Any) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    # Copies of the lists: PyYAML's own loaders and dumpers share them.
    resolvers = {first: list(pairs) for first, pairs in parent.yaml_implicit_resolvers.items()}
    for first in "+-.0123456789":
        resolvers.setdefault(first, []).append((FLOAT_TAG, EXPONENT))
    return resolvers


class _Reader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads `1e-4` as a number and refuses a repeated key."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeLoader)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """The mapping of a node, its keys as they are written; ConstructorError when a key is
        given twice.
        """
        # PyYAML takes the last value without a word.
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"key {key.value!r} is given twice; remove one"
                raise yaml.constructor.ConstructorError(
                    problem=problem, problem_mark=key.start_mark
                )
            seen.add(key.value)
            # Keys are names: `off` and `0.5` are what is written, no truth value and no number.
            if key.tag in _PLAIN:
                key.tag = TEXT_TAG
        return super().construct_mapping(node, deep=deep)


def _write_tuple(writer: Any, data: tuple[Any, ...]) -> Any:
    return writer.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


def _write_text(writer: Any, data: str) -> Any:
    # Only double quotes keep a Unicode line break; PyYAML's other styles turn it into a space.
    style = '"' if UNICODE_BREAK.search(data) else None
    return writer.represent_scalar("tag:yaml.org,2002:str", data, style=style)


class _Writer(yaml.SafeDumper):
    """PyYAML's safe dumper, which also quotes texts that `_Reader` would read as numbers, and
    writes tuples as lists.
    """

    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper)
    yaml_representers = {**yaml.SafeDumper.yaml_representers, tuple: _write_tuple, str: _write_text}

    def ignore_aliases(self, data: Any) -> bool:
        """Always true: a value that occurs twice is written twice, without YAML's anchors."""
        del data
        return True


def _write_printable(writer: Any, data: str) -> Any:
    # In double quotes line breaks are escaped, where other styles go on in the next line.
    style = None if data.isprintable() else '"'
    return writer.represent_scalar(TEXT_TAG, data, style=style)


class _LineWriter(_Writer):
    """A writer whose texts stay on one line, whatever is in them."""

    yaml_representers = {**_Writer.yaml_representers, str: _write_printable}


def read_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text; RecipeError with `origin:line:column` when it is not valid."""
    try:
        return yaml.load(text, Loader=_Reader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
        raise RecipeError(f"{place}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{origin}: not valid YAML: {error}") from error


def write_yaml(value: Any) -> str:
    """`value` as YAML that `read_yaml` reads back equal, keys in their own order."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=120)


def write_line(value: Any) -> str:
    """`value` as YAML on one line, which is read back equal after `key: ` and within brackets."""
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": math.inf}
    # Within a list, as commas and brackets are of no account elsewhere and stay without quotes.
    written: str = yaml.dump([value], Dumper=_LineWriter, default_flow_style=True, **options)
    return written.strip()[1:-1]

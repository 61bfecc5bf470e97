"""Where a checkpoint keeps the tensors that a part's own class expects, found by their names'
common prefix.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from sailvit.core.errors import ModelError
from sailvit.interop.reading.stored import Names, Stored

_PROBES = 40
"""Names that the prefix is found with; more would only cost time."""
_EXPERT = re.compile(r"\.experts\.")

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes that a class expects, by name."""


def locate(names: Names, expected: Collection[str]) -> dict[str, Stored]:
    """The checkpoint's tensor for each expected name that it has, all under one prefix."""
    ordered = sorted(expected)
    probes = ordered[:: max(1, len(ordered) // _PROBES)]
    ends = Counter(
        given.removesuffix(probe)
        for probe in probes
        for given in names
        if given == probe or given.endswith(f".{probe}")
    )
    if not ends:
        return {}
    # The shortest of equally common ones: a longer one is that of a copy deeper inside.
    prefix = min(ends, key=lambda found: (-ends[found], len(found)))
    return {name: names[prefix + name] for name in expected if prefix + name in names}


def experts(names: Names, found: Mapping[str, Stored]) -> dict[str, Stored]:
    """Tensors of single experts beside those that were found, by the names that the part's
    class reads: it joins them while it loads.
    """
    if not found:
        return {}
    inside, held = next(iter(found.items()))
    prefix = held.name.removesuffix(inside)
    return {
        name.removeprefix(prefix): stored
        for name, stored in names.items()
        if name.startswith(prefix) and _EXPERT.search(name)
    }


def without_experts(expected: Shapes) -> dict[str, tuple[int, ...]]:
    """The expected tensors without those of experts."""
    return {name: shape for name, shape in expected.items() if not _EXPERT.search(name)}


def refuse_other_shapes(
    part: str, found: Mapping[str, Stored], expected: Shapes, free: Iterable[str] = ()
) -> None:
    """Refuse tensors of other shapes than expected; of those in `free` the first axis may differ.

    Raises:
        ModelError: the first tensor that has another shape.
    """
    for name, stored in found.items():
        wanted = expected.get(name, stored.shape)
        start = 1 if name in free else 0
        if stored.shape[start:] != wanted[start:]:
            raise ModelError(
                f"the {part}'s tensor {stored.name} is {list(stored.shape)}, and its config makes"
                f" it {list(wanted)}; config and weights are of different models: download both"
                " again"
            )

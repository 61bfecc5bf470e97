"""Which layer may import which, and where third-party libraries belong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from house_rules import Module, imports

Folder = tuple[str, ...]
"""Names from the top of the package down; the package itself is ()."""

LAYERS = [
    {"__main__"},
    {"entry"},
    {"cli"},
    {"api"},
    {"recipes"},
    {"preflight"},
    {"training", "evaluation", "interop", "report", "dataprep"},
    {"inference"},
    {"models", "data"},
    {"synthetic"},
    {"checkpoint"},
    {"distributed"},
    {"core"},
]
"""From the top down; layers in one set are siblings."""

PLACES = {
    "PIL": (
        "data/",
        "dataprep/",
        "synthetic/",
        "inference/",
        "interop/",
        "preflight/random_source",
    ),
    "matplotlib": ("report/", "synthetic/charts/"),
    "transformers": ("models/", "data/processing/", "inference/", "interop/"),
    "typer": ("cli/",),
    "rich": ("cli/", "entry"),
    "yaml": ("recipes/",),
    "jinja2": ("report/", "data/processing/"),
}
"""Where each of these libraries may be imported: beginnings of module names."""


def layer_breaks(module: Module) -> Iterator[tuple[int, str]]:
    """Imports that go up or sideways, lazy ones included."""
    depth = {name: level for level, names in enumerate(LAYERS) for name in names}
    for line, name in imports(module):
        parts = name.split(".")
        if (
            parts[0] != "sailvit"
            or len(parts) < 2
            or parts[1] not in depth
            or module.layer not in depth
        ):
            continue
        other = parts[1]
        if other != module.layer and depth[other] <= depth[module.layer]:
            way = "its sibling" if depth[other] == depth[module.layer] else "upwards"
            yield line, f"{module.layer} imports {way} {name}; move what both need below both"


def place_breaks(module: Module) -> Iterator[tuple[int, str]]:
    """Third-party libraries outside their places."""
    for line, name in imports(module):
        library = name.split(".")[0]
        if library in PLACES and not module.name.startswith(PLACES[library]):
            yield line, f"{library} belongs to {' and '.join(PLACES[library])}; call what is there"


def folder_cycles(given: Sequence[Module]) -> list[str]:
    """Imports by which folders, at any depth, import each other, directly or through others; lazy ones included."""
    folders = {_folder(module) for module in given}
    edges: defaultdict[Folder, dict[Folder, list[str]]] = defaultdict(dict)
    for module in given:
        for line, name in imports(module):
            package, *parts = name.split(".")
            if package != "sailvit":
                continue
            while tuple(parts) not in folders:
                parts.pop()
            here, there = _parted(_folder(module), tuple(parts))
            if here != there:
                text = f"src/sailvit/{module.name}:{line}: {name} imports in a circle"
                edges[here].setdefault(there, []).append(f"{text}; move what both need below both")
    return [
        text
        for here, targets in edges.items()
        for there, texts in targets.items()
        if here in _reached(edges, there)
        for text in texts
    ]


def _folder(module: Module) -> Folder:
    return tuple(module.name.split("/")[:-1])


def _parted(one: Folder, other: Folder) -> tuple[Folder, Folder]:
    """Both folders up to where their ways part: the siblings, or parent and child, that hold them."""
    depth = 0
    while one[: depth + 1] == other[: depth + 1] and depth < max(len(one), len(other)):
        depth += 1
    return one[: depth + 1], other[: depth + 1]


def _reached(edges: Mapping[Folder, Mapping[Folder, object]], start: Folder) -> set[Folder]:
    found, waiting = {start}, [start]
    while waiting:
        new = set(edges.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def unplaced(module: Module) -> Iterator[tuple[int, str]]:
    """A folder that no layer names would escape every check."""
    if module.layer not in {name for names in LAYERS for name in names} | {"__init__"}:
        yield 1, f"{module.layer} is in no layer; give it a place in the layers"

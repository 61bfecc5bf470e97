"""Which layer may import which, and where third-party libraries belong."""

from __future__ import annotations

from collections.abc import Iterator

from house_rules import Module, imports

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
    "PIL": ("data/", "dataprep/", "synthetic/", "inference/", "preflight/random_source"),
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


def unplaced(module: Module) -> Iterator[tuple[int, str]]:
    """A folder that no layer names would escape every check."""
    if module.layer not in {name for names in LAYERS for name in names} | {"__init__"}:
        yield 1, f"{module.layer} is in no layer; give it a place in the layers"

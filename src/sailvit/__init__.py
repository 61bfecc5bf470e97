"""sailvit: refine any pretrained ViT in stages against a small LLM, keep the ViT, plug it into
multimodal LLMs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sailvit.core.version import __version__ as __version__

if TYPE_CHECKING:
    from sailvit.api.models import load_run as load_run
    from sailvit.api.towers import load_tower as load_tower
    from sailvit.core.errors import InterruptedRunError as InterruptedRunError
    from sailvit.core.errors import SailvitError as SailvitError
    from sailvit.core.recipe import Recipe as Recipe
    from sailvit.core.recipe import Stage as Stage
    from sailvit.core.records import Record as Record
    from sailvit.core.records import Source as Source
    from sailvit.core.records import Turn as Turn
    from sailvit.entry import train as train
    from sailvit.training.objectives.objective import Objective as Objective
    from sailvit.training.stages.callback import Callback as Callback

__all__ = [
    "Callback",
    "InterruptedRunError",
    "Objective",
    "Recipe",
    "Record",
    "SailvitError",
    "Source",
    "Stage",
    "Turn",
    "load_run",
    "load_tower",
    "train",
]

_HOMES = {
    "train": "entry",
    "load_run": "api.models",
    "load_tower": "api.towers",
    "Recipe": "core.recipe",
    "Stage": "core.recipe",
    "Record": "core.records",
    "Turn": "core.records",
    "Source": "core.records",
    "Callback": "training.stages.callback",
    "Objective": "training.objectives.objective",
    "SailvitError": "core.errors",
    "InterruptedRunError": "core.errors",
}
"""Where each public name lives; it is imported when it is first asked for, as torch takes
seconds."""


def __getattr__(name: str) -> Any:
    """A public name of the package."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'sailvit' has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(f"sailvit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Names for completion: the public ones."""
    return [*__all__, "__version__"]

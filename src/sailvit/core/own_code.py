"""Classes of the user's own, which a recipe names as `module:Class`. Finding one runs its
module's code.
"""

from __future__ import annotations

from importlib import import_module

from sailvit.core.errors import SailvitError


def is_own(name: str) -> bool:
    """Whether a name in a recipe names a class of the user's own."""
    return ":" in name


def own_class(name: str, error: type[SailvitError]) -> type:
    """The class that `module:Class` names; its module must lie where Python finds it.

    It is never looked for in the recipe's folder, so a recipe from somebody else can only run
    code that is installed here or lies in the current folder.

    Raises:
        SailvitError: of the kind `error`, when there is no such module or class. What the
            module itself raises passes through, as its author needs the traceback.
    """
    place, _, attribute = name.partition(":")
    try:
        module = import_module(place)
    # ValueError is what a name without a module, such as `:Class`, raises.
    except (ImportError, ValueError) as problem:
        raise error(
            f"{name}: the module {place} cannot be imported ({problem}); expected module:Class with a"
            " module that is installed or lies in the current folder"
        ) from problem
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        there = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == place
        ]
        raise error(
            f"{name}: the module {place} has no class {attribute!r}; expected one of"
            f" {', '.join(there) or 'its classes, but it has none'}"
        )
    return found

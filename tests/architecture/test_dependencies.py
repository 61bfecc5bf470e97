"""What must be installed is what training and the demo import; all else is an extra."""

from __future__ import annotations

import re
from pathlib import Path

from house_rules import Module, imports, modules

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
IMPORTED_AS = {"pyyaml": "yaml", "pillow": "PIL"}
"""Names of packages whose modules are called otherwise."""
STARTS = ("cli/train", "cli/demo")
"""The commands that must work without extras."""


def hard_dependencies(text: str) -> set[str]:
    """Modules that `dependencies` of a pyproject file install."""
    block = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    names = re.findall(r'"([A-Za-z0-9-]+)', block)
    return {IMPORTED_AS.get(name, name) for name in names}


def reached(given: list[Module], starts: tuple[str, ...]) -> set[str]:
    """Third-party modules that these modules import, lazily or through others."""
    by_name = {module.name.removesuffix(".py"): module for module in given}
    waiting, seen, found = list(starts), set(), set()
    while waiting:
        here = waiting.pop()
        if here in seen or here not in by_name:
            continue
        seen.add(here)
        for _, name in imports(by_name[here]):
            package, *parts = name.split(".")
            if package != "sailvit":
                found.update((package, *parts))
            elif parts:
                # `from sailvit.a import b`: b is a module or stands in one, and `a` runs as well.
                ways = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
                waiting += [way + tail for way in ways for tail in ("", "/__init__")]
    return found


def test_nothing_is_required_that_training_and_the_demo_do_not_import():
    unused = hard_dependencies(PYPROJECT.read_text()) - reached(modules(), STARTS)
    assert not unused, f"make {unused} an extra, or import it where training needs it"


def test_an_unused_dependency_is_found():
    planted = '\ndependencies = [\n  "torch>=2",\n  "scikit-learn",\n]\n'
    assert hard_dependencies(planted) - reached(modules(), STARTS) == {"scikit-learn"}

"""The package keeps the house rules; a violation is shown as file:line with what to do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from copies import copies
from house_rules import FILE_RULES, PACKAGE, ROOT, Module, Rule, modules
from layers import folder_cycles, layer_breaks, place_breaks, unplaced

EVERY_RULE = [*FILE_RULES, layer_breaks, place_breaks, unplaced]


def violations(rule: Rule, given: list[Module]) -> list[str]:
    return [
        f"src/sailvit/{module.name}:{line}: {text}"
        for module in given
        for line, text in rule(module)
    ]


def show(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: rule.__name__)
def test_every_module_keeps(rule: Rule):
    show(violations(rule, modules()))


def test_no_folders_import_each_other():
    show(folder_cycles(modules()))


def test_no_two_places_share_twelve_lines():
    tests = [
        Module(path.relative_to(PACKAGE.parent.parent).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "tests").rglob("*.py"))
    ]
    show(copies([*modules(), *tests]))


def backward_calls(given: list[Module]) -> list[str]:
    return [
        f"src/sailvit/{module.name}:{node.lineno}"
        for module in given
        for node in module.nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "backward"
    ]


def test_there_is_one_backward():
    assert len(backward_calls(modules())) == 1, backward_calls(modules())


def code_lines(text: str) -> dict[str, int]:
    """Lines of every top-level function that hold code: neither docstring nor blank nor comment."""
    lines, lengths = text.splitlines(), {}
    for function in ast.parse(text).body:
        if isinstance(function, ast.FunctionDef):
            own = set(range(function.lineno, (function.end_lineno or 0) + 1))
            if ast.get_docstring(function) is not None:
                own -= set(range(function.body[0].lineno, (function.body[0].end_lineno or 0) + 1))
            lengths[function.name] = sum(
                not re.match(r"\s*(#|$)", lines[number - 1]) for number in own
            )
    return lengths


def test_the_loop_is_short():
    (loop,) = [module for module in modules() if module.name == "training/stages/loop.py"]
    lengths = code_lines(loop.text)
    assert lengths["run_stage"] <= 40
    assert max(lengths.values()) <= 50


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_the_report_runs_without(name: str):
    code = f"import sys; sys.modules[{name!r}] = None; import sailvit.report.page"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_torch():
    code = "import sys; import sailvit.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tests_are_longer_than_three_fifths_of_the_code():
    code = sum(module.text.count("\n") for module in modules())
    tests = sum(
        path.read_text(encoding="utf-8").count("\n") for path in (ROOT / "tests").rglob("*.py")
    )
    assert tests >= 0.6 * code, f"{tests} lines of tests for {code} lines of code"


def readme_faults(text: str) -> list[str]:
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines, 1) if line.startswith("```")), None)
    faults = [f"README.md: {len(lines)} lines; 150 is the most"] if len(lines) > 150 else []
    if first is None or first > 25:
        faults.append(f"README.md: the first command is in line {first}; 25 is the last")
    return faults


def test_readme_is_short_and_starts_with_a_command():
    show(readme_faults((ROOT / "README.md").read_text(encoding="utf-8")))


FOREIGN = re.compile(
    "|".join(
        [
            r"/work/",
            r"\bissues? #?\d",
            r"\bhelper [A-Z]{3,}",
            r"index-url",
            r"\b(?:claude|anthropic|chatgpt)\b",
        ]
    ),
    re.IGNORECASE,
)
"""What belongs to a workplace, not to the project."""
TEXT_ENDINGS = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".css", ".html", ".cfg", ""}


def project_files() -> Iterator[Path]:
    """Text files of the project; `.git` is a file, and not the project's, in a linked worktree."""
    top = (path for path in ROOT.iterdir() if path.is_file() and path.name != ".git")
    yield from (path for path in top if path.suffix in TEXT_ENDINGS)
    for folder in ("src", "tests", "docs", "benchmarks", ".ci", ".github"):
        for path in sorted((ROOT / folder).rglob("*")):
            inside = "__pycache__" not in path.parts and not any(
                part.endswith(".egg-info") for part in path.parts
            )
            if path.is_file() and path.suffix in TEXT_ENDINGS and inside:
                yield path


def test_the_project_speaks_of_itself_alone():
    here = Path(__file__).resolve()
    show(
        [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for path in project_files()
            if path.resolve().parent != here.parent
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if FOREIGN.search(line)
        ]
    )


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()

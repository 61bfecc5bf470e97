"""Places that share lines: the longest runs of equal code, wherever they stand."""

from __future__ import annotations

import ast
from collections import defaultdict

from house_rules import FUNCTIONS, Module

LINES = 12
"""Lines of a copy in its file; what stands between its lines of code counts."""
LEAST = 5
"""Lines of code of a copy. Imports, signatures, docstrings and comments are not compared."""


def compared(module: Module) -> list[tuple[int, str]]:
    """Number and text of the lines of code that are compared."""
    skipped = set()
    for node in module.nodes:
        told = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if told or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or 0) + 1))
        if isinstance(node, FUNCTIONS):
            skipped |= set(range(node.lineno, node.body[0].lineno))
    lines = (
        (n, line.split("  #")[0].strip()) for n, line in enumerate(module.text.splitlines(), 1)
    )
    return [(n, line) for n, line in lines if n not in skipped and line and line[0] != "#"]


def copies(given: list[Module]) -> list[str]:
    """Both places of every run of equal lines, as long as it goes; those of one file do not
    overlap.
    """
    every, seen, found = [compared(module) for module in given], defaultdict(list), []
    for which, rows in enumerate(every):
        texts = [text for _, text in rows]
        for at in range(len(rows) - LEAST + 1):
            for other, start in seen[tuple(texts[at : at + LEAST])]:
                theirs = every[other][start : at if other == which else None]
                pairs = zip((text for _, text in theirs), texts[at:], strict=False)
                size = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
                runs = theirs[:size], rows[at : at + (size or len(theirs))]
                earlier = start and at and every[other][start - 1][1] == texts[at - 1]
                if not earlier and all(run[-1][0] - run[0][0] >= LINES - 1 for run in runs):
                    names = given[other].name, given[which].name
                    ends = (f"{run[0][0]}-{run[-1][0]}" for run in runs)
                    found.append(" and ".join(map(":".join, zip(names, ends, strict=True))))
            seen[tuple(texts[at : at + LEAST])].append((which, at))
    return found

"""Agreement of our scorers with VLMEvalKit's on random answers, answer by answer: docs/evaluation.md.

The reference runs in a virtual environment of its own, without torch:

    pip install pandas pillow sty validators tabulate tqdm huggingface_hub openpyxl xlsxwriter rich \
        portalocker matplotlib requests hypothesis pydantic
    pip download --no-deps -d wheels ms-vlmeval==0.0.20     # before-2025-08: 0.0.18; before-2025-06: 0.0.2
    unzip wheels/ms_vlmeval-0.0.20-py3-none-any.whl -d reference
    PYTHONPATH=src python benchmarks/scorer_agreement.py reference [--matcher 2025-08] \
        [--answers 20000] [--sets 100] [--out FILE] [--record FILE]

`--record` writes a few hundred cases with the reference's verdicts, for tests/evaluation/scoring.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "evaluation"))

from scorer_cases import CASES
from scorer_reference import Reference
from scorer_sets import compare_sets
from verdicts import ours

from sailvit.evaluation.scoring.matching import read_matcher

BATCH = 25
"""Answers per example of hypothesis, whose own work per example is then small."""
KEPT = 20
"""Differing cases that are written down."""


def compared(kind: str, reference: Reference, matcher: Any, answers: int) -> dict[str, Any]:
    """Cases, agreements and the differing cases of one kind."""
    counts: Counter[str] = Counter()
    differing: list[Any] = []
    start = time.perf_counter()

    @seed(0)
    @settings(
        max_examples=max(1, answers // BATCH + 1),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(CASES[kind], min_size=BATCH, max_size=BATCH))
    def look(cases: list[dict[str, Any]]) -> None:
        for case in cases:
            wanted, found = reference.verdict(kind, case), ours(kind, case, matcher)
            counts["answers"] += 1
            counts["agree"] += same(wanted, found)
            if not same(wanted, found) and len(differing) < KEPT:
                differing.append({"case": case, "reference": wanted, "ours": found})

    look()
    seconds = round(time.perf_counter() - start, 1)
    told = {"answers": counts["answers"], "agree": counts["agree"], "seconds": seconds}
    return {**told, "differing": differing}


def same(one: Any, other: Any) -> bool:
    """Whether two verdicts are equal, floats apart from rounding."""
    if isinstance(one, float) and isinstance(other, float | int):
        return abs(one - other) < 1e-12
    return bool(one == other)


def recorded(reference: Reference, kinds: list[str]) -> dict[str, list[Any]]:
    """A few dozen cases of every kind with the reference's verdicts."""
    made: dict[str, list[Any]] = {}
    for kind in kinds:
        made[kind] = [
            {"case": case, "verdict": reference.verdict(kind, case)}
            for case in drawn(CASES[kind], 60)
        ]
    return made


def drawn(strategy: Any, count: int) -> list[dict[str, Any]]:
    """`count` different cases, always the same ones."""
    found: dict[str, dict[str, Any]] = {}

    @seed(1)
    @settings(
        max_examples=10 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def look(case: dict[str, Any]) -> None:
        text = json.dumps(case, sort_keys=True)
        if len(found) < count and len(text) < 600:
            found.setdefault(text, case)

    look()
    return list(found.values())


def main(argv: list[str] | None = None) -> int:
    """Compare, print a line per kind and write what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("reference", type=Path, help="folder of the unpacked ms-vlmeval wheel")
    parser.add_argument("--matcher", default="2025-08")
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--kinds", nargs="*", default=list(CASES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--record", type=Path)
    given_options = parser.parse_args(argv)
    reference = Reference(given_options.reference)
    if given_options.record:
        value = {"reference": reference.version, "cases": recorded(reference, given_options.kinds)}
        given_options.record.write_text(json.dumps(value, indent=0, ensure_ascii=True) + "\n")
        return 0
    matcher = read_matcher(given_options.matcher)
    found = {}
    for kind in given_options.kinds:
        told = found[kind] = compared(kind, reference, matcher, given_options.answers)
        print(f"{kind:>12}  {told['agree']:>6} of {told['answers']:>6}  {told['seconds']:>6} s")
        for each in told["differing"][:3]:
            print("    ", json.dumps(each)[:400])
        sys.stdout.flush()
    sets = compare_sets(reference, matcher, given_options.sets)
    for kind, told in sets.items():
        print(f"set {kind:>10}  {told['agree']:>4} of {told['sets']:>4}")
        for each in told["differing"][:2]:
            print("    ", json.dumps(each)[:600])
    if given_options.out:
        value = {
            "date": datetime.now(timezone.utc).date().isoformat(),
            "reference": reference.version,
            "matcher": matcher,
            "answers": found,
            "sets": sets,
        }
        given_options.out.write_text(json.dumps(value, indent=1) + "\n")
    every = [*found.values(), *sets.values()]
    return int(any(told["agree"] != told.get("answers", told.get("sets")) for told in every))


if __name__ == "__main__":
    sys.exit(main())

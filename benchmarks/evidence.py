"""The tables of docs/evidence.md and the README's figures of studies, from committed results alone.

    python benchmarks/evidence.py docs/evidence.md docs/earlier_evidence.md README.md

It trains nothing: it reads the cells of `studies/` and the files of benchmarks/results, so that the page cannot say
anything else than they do. `make evidence` writes the studies' reports, this page and its picture.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from sailvit.core.study.cells import cells_of
from sailvit.core.study.definition import Study
from sailvit.core.study.folder import DONE, StudyFolder
from sailvit.core.study.units import POINTS
from sailvit.evaluation.studies.differences import Asked, difference, spread_of
from sailvit.evaluation.studies.results import results
from sailvit.evaluation.studies.versions import current_files
from sailvit.recipes.studies import load_study
from sailvit.report.study import row_cells, tables

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- written by benchmarks/evidence.py: {} -->\n", "<!-- end -->"
WAYS = {
    "gradual": "gradual",
    "joint_samples": "all at once, as many samples",
    "joint_compute": "all at once, as much compute",
    "no_contrastive": "gradual, without the contrastive objective",
}
"""The refinements of benchmarks/gradual_vs_joint.py, as the page calls them."""


def read(name: str) -> tuple[Study, list[Mapping[str, Any]]]:
    """A study of this repository, and its committed cells without those of edited levels."""
    folder = StudyFolder(ROOT / "studies" / name)
    made = load_study(folder.path.with_suffix(".yaml"))
    names = {cell.name for cell in cells_of(made)}
    files = {cell["cell"]: cell for cell in folder.read_cells() if cell["cell"] in names}
    return made, list(current_files(made, files).values())


def study(name: str) -> dict[str, Any]:
    """The numbers of a study of this repository, from the cells that are committed."""
    return results(*read(name))


def by_default(made: Study, measure: str, better: str, than: str) -> Asked:
    """The difference between two arms at the defaults of all other factors."""
    contrast, unit = made.contrast, made.measures[measure].unit
    others = tuple((f, level) for f, level in made.defaults().items() if f != contrast.factor)
    return Asked(measure, unit, contrast.factor, better, than, others)


def claims(name: str) -> str:
    """A row for every claim of a study: the sentence, what came out, and its numbers."""
    found = study(name)
    lines = [_counted(name, found), "", "| claim | comes to | numbers |", "|---|---|---|"]
    for claim in found["claims"]:
        measured = any(each["seeds"] for each in claim["numbers"])
        word = f"**{claim['verdict']}**" if measured else "not measured yet"
        told = claim["sentence"].partition(f"{claim['verdict'].capitalize()}: ")[2].rstrip(".")
        lines.append(f"| {claim['says']} | {word} | {told if measured else ''} |")
    return "\n".join(lines) + "\n"


def dimensions(name: str) -> str:
    """A row for every difference from the base in a study's first measure; the other measures are in
    its report.
    """
    found = study(name)
    first = found["differences"][0]["measure"]
    rows = [each for each in found["differences"] if each["measure"] == first and each["seeds"]]
    if not rows:
        return "There is none yet.\n"
    heads = next(iter(tables(rows))).heads
    lines = [f"| {first} | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    lines += [f"| {_label(each)} | {' | '.join(row_cells(each))} |" for each in rows]
    return "\n".join(lines) + "\n"


def grid(name: str, measure: str) -> str:
    """A row for every setting of a study's other factors, a column for every other level of its
    contrast: differences from the base, bold where they are shown.
    """
    made, cells = read(name)
    arms = [each for each in made.levels(made.contrast.factor) if each != made.contrast.base]
    places: dict[tuple[str, ...], dict[str, str]] = {}
    for row in results(made, cells)["differences"]:
        if row["measure"] == measure and row["seeds"]:
            told = f"{row['difference']:+.{made.measures[measure].unit.digits}f}"
            shown = f"**{told}**" if row["word"] in ("improves", "worse") else told
            places.setdefault(tuple(row["others"].values()), {})[row["better"]] = shown
    lines = [f"| {' and '.join(made.others())} | {' | '.join(arms)} |"]
    lines += ["|---" * (1 + len(arms)) + "|"]
    for levels in product(*(made.levels(factor) for factor in made.others())):
        told_here = places.get(levels, {})
        if told_here:
            lines.append(
                f"| {', '.join(levels)} | {' | '.join(told_here.get(arm, '') for arm in arms)} |"
            )
    return "\n".join(lines) + "\n"


def by_task(name: str) -> str:
    """A row for every task of a study's first measure: what the refined tower gains on it at the
    defaults, with an interval over seeds from that task's own spread.
    """
    made, cells = read(name)
    measure = next(iter(made.measures))
    asked = by_default(made, measure, made.contrast.refined, made.contrast.base)
    tasks = difference(cells, asked, None).tasks
    if not tasks:
        return "There is none yet.\n"
    lines = ["| task | base | refined | points | 95 % over seeds |", "|---|---|---|---|---|"]
    for task in tasks:
        alone = [_of_task(cell, measure, task) for cell in cells if cell["status"] == DONE]
        found = difference(alone, asked, spread_of(alone, [asked]))
        reach = "" if found.low is None else f"{found.low:+.1f} to {found.high:+.1f}"
        lines.append(
            f"| {task} | {found.than:.1f} | {found.better:.1f} | {found.mean:+.1f} | {reach} |"
        )
    return "\n".join(lines) + "\n"


def _of_task(cell: Mapping[str, Any], measure: str, task: str) -> dict[str, Any]:
    """The cell's file as if the measure had this task alone."""
    if measure not in cell["values"]:
        return dict(cell)
    scores = cell["values"][measure]["scores"]
    alone = {"mean": scores[task], "scores": {task: scores[task]}}
    return {**cell, "values": {measure: alone}}


def _label(row: Mapping[str, Any]) -> str:
    changed = [f"{factor} {level}" for factor, level in row["changed"].items()]
    return ", ".join([row["better"], *changed])


def _counted(name: str, found: Mapping[str, Any]) -> str:
    cells = found["cells"]
    failed = f", {len(cells['failed'])} failed" if cells["failed"] else ""
    return f"{cells['done']} of {cells['all']} cells of `studies/{name}.yaml` are measured{failed}."


def earlier() -> str:
    """Ways to refine against the base and against each other, by what ran before the study: three
    seeds, paired, with one spread for all (`gradual_vs_joint.json`).
    """
    cells = [
        {
            "levels": {"target": row["target_tower"], "way": row["way"]},
            "seed": row["seed"],
            "status": "done",
            "values": {"world": {"mean": row["mean"], "scores": {}}},
        }
        for row in published("gradual_vs_joint")["rows"]
    ]
    targets = ("frozen", "training")
    pairs = [(way, "base") for way in WAYS] + [("gradual", way) for way in WAYS if way != "gradual"]
    asked = {
        (pair, target): Asked("world", POINTS, "way", *pair, (("target", target),))
        for pair in pairs
        for target in targets
    }
    spread = spread_of(cells, asked.values())
    lines = ["| | tower frozen in target training | tower training |", "|---|---|---|"]
    for better, than in pairs:
        found = [difference(cells, asked[(better, than), target], spread) for target in targets]
        told = [f"{each.mean:+.1f} ({each.low:+.1f} to {each.high:+.1f})" for each in found]
        than_named = WAYS.get(than, than)
        lines.append(f"| {WAYS[better]}, above {than_named} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def forgetting() -> str:
    """Drift of the tower and perplexity of the language along one run of each way
    (`conflict.json`).
    """
    summary = published("conflict")["summary"]
    lines = ["| | gradual | all at once |", "|---|---|---|"]
    for name, key in {
        "perplexity of held-out texts, highest": "highest_perplexity",
        "perplexity at the end": "perplexity",
        "likeness of the tower's features to the base's (CKA), lowest": "lowest_cka",
        "likeness at the end": "cka",
    }.items():
        told = [f"{summary[way][key]:.2f}" for way in ("gradual", "joint")]
        lines.append(f"| {name} | {' | '.join(told)} |")
    base = summary["gradual"]["base_perplexity"]
    return "\n".join([*lines, "", f"The language began at a perplexity of {base:.2f}."]) + "\n"


def native() -> str:
    """Documents read in native resolution, padded to squares, and in tiles
    (`native_documents.json`).
    """
    cells = published("native_documents")["cells"]
    lines = ["| way | strips read exactly | digits | visual tokens |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {each['exact']:.3f} | {each['digits']:.3f} | {each['visual_tokens']:.1f} |"
        for name, each in cells.items()
    ]
    return "\n".join(lines) + "\n"


def published(name: str) -> dict[str, Any]:
    """A committed result."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


BLOCKS: dict[str, Callable[[], str]] = {
    "claims": lambda: claims("demo"),
    "tables": lambda: dimensions("demo"),
    "tasks": lambda: by_task("demo"),
    "regime world": lambda: grid("regime", "world"),
    "regime reading": lambda: grid("regime", "reading"),
    "regime claims": lambda: claims("regime"),
    "real claims": lambda: claims("real"),
    "earlier": earlier,
    "forgetting": forgetting,
    "native": native,
}
"""What stands between the page's marks, by their names."""


def headlines() -> dict[str, str]:
    """The README's figures of the demo's study, by what its table calls them."""
    made, cells = read("demo")
    gains = (row for row in results(made, cells)["differences"] if row["better"] == "gradual")
    gain = next(row for row in gains if row["measure"] == "world" and not row["changed"])
    reach = f" ({gain['low']:+.1f} to {gain['high']:+.1f})" if gain["low"] is not None else ""
    # Of the seeds that have both, as the claim counts them.
    pairs = [("at-once", "gradual"), ("base", "gradual")]
    kept, before = (difference(cells, by_default(made, "forgets", *pair), None) for pair in pairs)
    told = [kept.than, kept.better, before.better]
    return {
        GAIN: f"{gain['difference']:+.1f}{reach}, {len(gain['seeds'])} seeds",
        FORGETS: ", ".join("none yet" if each is None else f"{each:.2f}" for each in told),
    }


GAIN = "Refined over base tower in the demo, points of mean held-out exact match, 95 % over seeds"
FORGETS = "Loss of the demo's language on its texts, nats per token: in stages, all at once, before"


def with_headlines(text: str) -> str:
    """A page's text with the figures of `headlines` in its tables written anew."""
    for what, figure in headlines().items():
        row = rf"(?m)^(\| {re.escape(what)} \|)[^|]*\|"
        text = re.sub(row, rf"\1 {figure} |", text)
    return text


def written(text: str) -> str:
    """A page's text with every block that it has written anew."""
    for name, block in BLOCKS.items():
        begin = BEGIN.format(name)
        if begin in text:
            start, rest = text.split(begin)
            text = start + begin + block() + END + rest.split(END, 1)[1]
    return text


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        told = with_headlines(written(page.read_text(encoding="utf-8")))
        page.write_text(told, encoding="utf-8")

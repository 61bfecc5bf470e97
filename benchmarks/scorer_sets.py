"""Whole random sets through files: their classes score a spreadsheet, we score the same rows; for
`scorer_agreement.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from scorer_cases import CASES, LETTERS, NUMBERS, OPTIONS, spoken
from scorer_reference import CannedModel, Reference

from sailvit.evaluation.scoring.cells import read_back
from sailvit.evaluation.scoring.kinds import score_set
from sailvit.evaluation.scoring.rows import typed_rows
from sailvit.evaluation.scoring.rules import Rules

Table = list[dict[str, str]]
"""Rows with a column `prediction`."""
_ROWS = 8


@st.composite
def _choice_rows(draw: st.DrawFn, turns: int, *, is_open: bool = False) -> Table:
    rows: Table = []
    split = draw(st.booleans())
    for number in range(draw(st.integers(2, _ROWS))):
        options = draw(OPTIONS)
        for turn in range(turns):
            gold = draw(st.sampled_from(list(options)))
            said = draw(st.one_of(st.just(gold), spoken(st.sampled_from(list(options.values())))))
            row = {"index": str(number + 1000000 * turn), "question": f"q{number}"}
            row |= {letter: options.get(letter, "") for letter in LETTERS[:6]}
            if is_open and draw(st.booleans()):
                gold = draw(st.one_of(NUMBERS.filter(str.strip), st.just("some text")))
                row |= dict.fromkeys(LETTERS[:6], "")
                said = draw(st.sampled_from([gold, f"It is {gold}", "A", "x"]))
            row |= {"answer": gold, "prediction": said, "category": "c" + str(number % 2)}
            if split or is_open:
                row["split"] = draw(st.sampled_from(["dev", "validation"]))
            rows.append(row)
    # All rotations share a split.
    for row in rows:
        if "split" in row and turns > 1:
            row["split"] = "dev"
    return rows


@st.composite
def _yes_no_rows(draw: st.DrawFn, *, kind: str) -> Table:
    rows: Table = []
    for number in range(draw(st.integers(2, _ROWS))):
        for question in range(2):
            gold = draw(st.sampled_from(["Yes", "No"]))
            said = draw(st.one_of(st.just(gold), spoken(st.sampled_from(["yes", "no"]))))
            category = draw(st.sampled_from(["VD", "VS"]))
            index = f"{category}_ocr_{number % 2}_{number % 3}_{number}_{question}"
            row = {"index": index, "question": "q", "answer": gold, "prediction": said}
            if kind == "mme":
                category = "OCR" if number % 2 else "code_reasoning"
            if kind == "pope":
                category = draw(st.sampled_from(["random", "random,popular", "adversarial"]))
            rows.append(row | {"category": category, "l2-category": f"{category}_ocr"})
            if kind == "mme":
                rows[-1] |= {"image_path": f"{number}.png", "index": f"{2 * number + question}"}
            if kind == "pope":
                rows[-1]["index"] = f"{2 * number + question}"
    return rows


@st.composite
def _listed_rows(draw: st.DrawFn, *, case: str) -> Table:
    rows: Table = []
    for number in range(draw(st.integers(2, _ROWS))):
        one: Any = draw(CASES[case])
        row = {"index": str(number), "question": "q", "prediction": str(one["answer"])}
        if case == "mathvista":
            known = {key: value for key, value in one["row"].items() if key != "index"}
            row |= known | {"task": f"t{number % 2}", "skills": "['s1', 's2']"}
        else:
            row |= {"answer": one["golds"], "category": one.get("category", "c")}
        if case != "ocrbench" and number % 2 == 0:
            row["prediction"] = draw(NUMBERS)
        rows.append(row)
    return rows


SETS: dict[str, tuple[str, str, str, Any]] = {
    "mcq": ("image_mcq", "ImageMCQDataset", "Star", _choice_rows(1)),
    "circular": ("image_mcq", "ImageMCQDataset", "MMBench_mini", _choice_rows(3)),
    "mmmu": ("image_mcq", "MMMUDataset", "MMMU_mini", _choice_rows(1, is_open=True)),
    "hallusion": ("image_yorn", "ImageYORNDataset", "HallusionBench_mini", _yes_no_rows(kind="h")),
    "pope": ("image_yorn", "ImageYORNDataset", "POPE_mini", _yes_no_rows(kind="pope")),
    "mme": ("image_yorn", "ImageYORNDataset", "MME_mini", _yes_no_rows(kind="mme")),
    "yes-no": ("image_yorn", "ImageYORNDataset", "Plain", _yes_no_rows(kind="h")),
    "ocrbench": ("image_vqa", "OCRBench", "OCRBench_mini", _listed_rows(case="ocrbench")),
    "mathvista": ("image_vqa", "MathVista", "MathVista_mini", _listed_rows(case="mathvista")),
    "anls": ("image_vqa", "ImageVQADataset", "DocVQA_mini", _listed_rows(case="anls")),
    "relaxed": ("image_vqa", "ImageVQADataset", "ChartQA_mini", _listed_rows(case="relaxed")),
    "vqa": ("image_vqa", "ImageVQADataset", "TextVQA_mini", _listed_rows(case="vqa")),
    "exact": ("image_vqa", "ImageVQADataset", "OCRVQA_mini", _listed_rows(case="exact")),
}
"""Per kind: their module and class, a set's name on which their code branches, and random rows."""


def compare_sets(reference: Reference, matcher: Any, count: int) -> dict[str, Any]:
    """Sets, agreements and differing sets per kind."""
    return {kind: _compared(reference, matcher, kind, count) for kind in SETS if count}


def _compared(reference: Reference, matcher: Any, kind: str, count: int) -> dict[str, Any]:
    told: dict[str, Any] = {"sets": 0, "agree": 0, "answers": 0, "differing": []}

    @seed(2)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(SETS[kind][3])
    def look(rows: Table) -> None:
        rows = [{key: _clean(value) for key, value in row.items()} for row in rows]
        wanted = theirs(reference, kind, rows)
        texts = [row.pop("prediction") for row in rows]
        made = score_set(kind, typed_rows(rows), read_back(texts, matcher), Rules(matcher))
        differs = {
            name: (value, made.metrics.get(name))
            for name, value in wanted.items()
            if not math.isclose(value, made.metrics.get(name, -1.0), abs_tol=1e-9)
        }
        told["sets"] += 1
        told["answers"] += len(rows)
        told["agree"] += not differs
        if differs and len(told["differing"]) < 5:
            told["differing"].append({"differs": differs, "rows": rows, "texts": texts})

    look()
    return told


def _clean(text: str) -> str:
    """Without what a table parted by tabs cannot hold as it is."""
    return "".join(
        c if c not in "\r\0\ufeff" and not "\ud800" <= c <= "\udfff" else " " for c in text
    )


class _NoPool:
    """Stands for a pool of processes: their 16 cost more than the work."""

    def __init__(self, *_: Any) -> None:
        pass

    def map(self, work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """`work` of every item."""
        return [work(item) for item in items]


def theirs(reference: Reference, kind: str, rows: Table) -> dict[str, float]:
    """Their numbers for the set, under our names."""
    module, cls, name, _ = SETS[kind]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["LMUData"] = folder  # noqa: SIM112 - their name of it
        table = pd.DataFrame(rows).drop(columns="prediction")
        table["image"] = "x" * 100
        table.to_csv(f"{folder}/{name}.tsv", sep="\t", index=False)
        made = reference.dataset(module, cls)
        holder = importlib.import_module(f"vlmeval.dataset.{module}")
        if hasattr(holder, "mp"):
            holder.mp = type("mp", (), {"Pool": _NoPool})
        if hasattr(holder, "build_judge"):
            holder.build_judge = lambda **_: CannedModel([])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            # Early versions take names alone that they know.
            made.DATASET_URL = {**made.DATASET_URL, name: f"x/{name}.tsv"}
            dataset = made(name)
            file = Path(folder) / f"model_{name}.xlsx"
            frame = dataset.data.drop(columns="image")
            frame["prediction"] = [row["prediction"] for row in rows]
            frame.to_excel(file, index=False, engine="xlsxwriter")
            scores = dataset.evaluate(str(file), model="exact_matching", nproc=1)
    return _named(
        kind,
        scores if isinstance(scores, dict) else json.loads(scores.to_json(double_precision=15)),
    )


def _named(kind: str, scores: dict[str, Any]) -> dict[str, float]:
    """Numbers of a result, given as columns of rows, under our names."""
    if kind == "ocrbench":
        return {name: float(value) for name, value in scores.items()}
    columns = {name: list(values.values()) for name, values in scores.items()}
    if kind in ("mcq", "circular", "mmmu"):
        return {
            f"{split}|{name}": 100 * values[place]
            for name, values in columns.items()
            if name != "split"
            for place, split in enumerate(columns["split"])
            if values[place] is not None
        }
    if kind in ("hallusion", "pope"):
        return {
            name if split == "Overall" else f"{split}|{name}": values[place]
            for name, values in columns.items()
            if name != "split"
            for place, split in enumerate(columns["split"])
        }
    if kind == "mathvista":
        return dict(zip(columns["Task&Skill"], columns["acc"], strict=True))
    return {name: values[0] for name, values in columns.items()}

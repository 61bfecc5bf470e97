"""The sets that are known by name, and what an unknown table is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sailvit.data.rows.tsv_table import Row
from sailvit.evaluation.scoring.kinds import Kind

_HOST = "https://opencompass.openxlab.space/utils"


@dataclass(frozen=True)
class QuestionSet:
    """A set of questions."""

    name: str
    """Its name, which its file has with the ending .tsv."""
    kind: Kind
    """How it is scored."""
    md5: str | None = None
    """MD5 of the official file; None: there is none."""
    url: str | None = None
    """Where the official file is; None: nowhere."""
    column: str | None = None
    """The column of OpenCompass' average that it is part of; None: of none."""


def _official(name: str, kind: Kind, md5: str, column: str | None = None) -> QuestionSet:
    place = "benchmarks/MMBench" if name.startswith("MMBench") else "VLMEval"
    return QuestionSet(name, kind, md5, f"{_HOST}/{place}/{name}.tsv", column)


OFFICIAL = (
    _official(
        "MMBench_DEV_EN_V11", "circular", "30c05be8f2f347a50be25aa067248184", "MMBench_V11 (DEV)"
    ),
    _official(
        "MMBench_DEV_CN_V11", "circular", "593f9b5f6bea453d870a798b34ae4f37", "MMBench_V11 (DEV)"
    ),
    _official("MMStar", "mcq", "e1ecd2140806c1b1bbf54b43372efb9e", "MMStar"),
    _official("MMMU_DEV_VAL", "mmmu", "585e8ad75e73f75dcad265dfd0417d64", "MMMU_VAL"),
    _official("MathVista_MINI", "mathvista", "f199b98e178e5a2a20e7048f5dcb0464", "MathVista"),
    _official("HallusionBench", "hallusion", "0c23ac0dc9ef46832d7a24504f2a0c7c", "HallusionBench"),
    _official("AI2D_TEST", "mcq", "0f593e0d1c7df9a3d69bf1f947e71975", "AI2D"),
    _official("OCRBench", "ocrbench", "e953d98a987cc6e26ef717b61260b778", "OCRBench"),
    _official("MMVet", "mmvet", "748aa6d4aa9d4de798306a63718455e3", "MMVet"),
    _official("DocVQA_VAL", "anls", "d5ee77e1926ff10690d469c56b73eabf"),
    _official("InfoVQA_VAL", "anls", "2342e9c225222f0ef4dec545ebb126fe"),
    _official("ChartQA_TEST", "relaxed", "c902e0aa9be5582a7aad6dcf52734b42"),
    _official("TextVQA_VAL", "vqa", "b233b31f551bbf4056f2f955da3a92cd"),
    _official("POPE", "pope", "c12f5acb142f2ef1f85a26ba2fbe41d5"),
    _official("RealWorldQA", "mcq", "4de008f55dc4fd008ca9e15321dc44b7"),
    _official("MME", "mme", "b36b43c3f09801f5d368627fb92187c3"),
)
"""The sets of the OpenCompass leaderboard whose answers are public, and others with them."""

_BRANCHES: tuple[tuple[str, Kind], ...] = (
    ("mmmu", "mmmu"),
    *((word, "circular") for word in ("mmbench", "ccbench", "circular", "mmcr")),
    ("mathvista", "mathvista"),
    ("mmvet", "mmvet"),
    ("ocrbench", "ocrbench"),
    ("hallusion", "hallusion"),
    ("pope", "pope"),
    ("textvqa", "vqa"),
    ("chartqa", "relaxed"),
    *((word, "anls") for word in ("docvqa", "infovqa")),
    ("ocrvqa", "exact"),
    ("gqa", "exact-mean"),
)
"""Words in a set's name at which VLMEvalKit's scorers branch, in lower case."""
_CHOICES: tuple[Kind, ...] = ("mcq", "circular", "mmmu", "mathvista")
"""Kinds whose tables have options, in columns or in a list."""


def known_set(name: str) -> QuestionSet | None:
    """The official set of that name; None: there is none."""
    return next((each for each in OFFICIAL if each.name == name), None)


def named_set(name: str, rows: Sequence[Row], kind: Kind | None = None) -> QuestionSet:
    """The set of that name with these rows: the official one, else of the kind that its name and
    its columns say, unless `kind` does.
    """
    official = known_set(name)
    if official is not None and kind in (None, official.kind):
        return official
    return QuestionSet(name, kind or _kind(name, rows))


def _kind(name: str, rows: Sequence[Row]) -> Kind:
    has_options = any(row.get("A") and row.get("B") for row in rows)
    for word, kind in _BRANCHES:
        if word in name.lower() and (kind in _CHOICES or not has_options):
            return kind
    return "mcq" if has_options else _kind_by_answers(name, {row.get("answer", "") for row in rows})


def _kind_by_answers(name: str, answers: set[str]) -> Kind:
    if answers <= {"Yes", "No"}:
        # MME's name is too short to be looked for within others.
        return "mme" if name.startswith("MME") else "yes-no"
    return "vqa" if all(answer.startswith("[") for answer in answers) else "exact"

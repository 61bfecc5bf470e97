"""The files of an evaluation's folder, as a page needs them; those that are missing are left out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sailvit.core.errors import RunError
from sailvit.core.formatting import clipped
from sailvit.core.run import read_json, read_lines

RESULTS, AFFINITY, PROBES = "results.json", "affinity.json", "probe.json"
"""What makes a folder an evaluation's; one of them is enough."""
_CHOSEN = "probe_comparison.json"
_LONGEST = 400
"""Most characters of a question or an answer: models that are stuck repeat themselves."""
_OPTION = 100
"""Most characters of an option."""
# Bitmaps alone, as an SVG could hold a script.
_PICTURE = re.compile(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+")


@dataclass(frozen=True)
class Question:
    """One question with every model's answer."""

    questions: str
    """Its set."""
    index: str
    """Its index in the set."""
    category: str
    """Its category in the set; empty: none."""
    text: str
    """The question."""
    options: Mapping[str, str]
    """Options by letter; none for open questions."""
    answer: str
    """The right answer."""
    pictures: tuple[str, ...]
    """Keys of its pictures."""
    predictions: tuple[str | None, ...]
    """What each model answered; None: it was not asked."""
    credits: tuple[float | None, ...]
    """What each answer counts, from 0 to 1; None: it does not count by itself."""
    understood: tuple[str, ...]
    """What the scorer took each answer to be."""


@dataclass(frozen=True)
class EvaluationData:
    """What is known of an evaluation."""

    path: Path
    """Its folder."""
    results: dict[str, Any] | None
    """results.json."""
    affinity: dict[str, Any] | None
    """affinity.json."""
    probes: list[dict[str, Any]]
    """Entries of probe.json."""
    best_layers: dict[str, dict[str, int]] = field(default_factory=dict)
    """Each tower's best layer per probe, as `sailvit probe` chose it without the test sets."""
    questions: list[Question] = field(default_factory=list)
    """The questions that are shown, set by set."""
    pictures: dict[str, str] = field(default_factory=dict)
    """Small pictures as `data:` URIs, by key."""
    asked: int = 0
    """Questions that were asked in all."""

    @property
    def models(self) -> list[str]:
        """Labels of the models, in order."""
        return list(self.results["models"]) if self.results else []

    @property
    def sets(self) -> list[str]:
        """Names of the sets, in order."""
        models = self.results["models"].values() if self.results else ()
        return list(dict.fromkeys(name for model in models for name in model["sets"]))


def is_evaluation(folder: Path) -> bool:
    """Whether `sailvit evaluate`, `affinity` or `probe` wrote into the folder."""
    if (folder / "manifest.json").is_file():
        return False
    return (folder / RESULTS).is_file() or any(
        (folder / name).is_file() and _known(name, folder) for name in (AFFINITY, PROBES)
    )


def read_evaluation(folder: Path) -> EvaluationData:
    """The data of an evaluation's folder.

    Raises:
        RunError: there is none, or a file is not what the commands write.
    """
    if not is_evaluation(folder):
        raise RunError(
            f"{folder} has none of {RESULTS}, {AFFINITY} and {PROBES}; expected the folder that"
            " `sailvit evaluate`, `sailvit affinity` or `sailvit probe` wrote (--out)"
        )
    results = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else None
    affinity = _optional(folder, AFFINITY)
    probes = _optional(folder, PROBES)
    questions: list[Question] = []
    pictures: dict[str, str] = {}
    asked = 0
    try:
        for path in _question_files(folder, results):
            found = read_json(path)
            asked += found["count"]
            pictures |= {k: v for k, v in found["pictures"].items() if _PICTURE.fullmatch(v)}
            questions += _questions(folder, found, list(results["models"] if results else ()))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(
            f"the questions in {folder} are not what this version writes ({error!r}); start"
            " sailvit evaluate again with the same arguments, which computes nothing twice"
        ) from error
    return EvaluationData(
        folder, results, affinity, probes or [], _best_layers(folder), questions, pictures, asked
    )


def _best_layers(folder: Path) -> dict[str, dict[str, int]]:
    path = folder / _CHOSEN
    towers = read_json(path).get("towers", {}) if path.is_file() else {}
    return {tower: each.get("best layers", {}) for tower, each in towers.items()}


def _optional(folder: Path, name: str) -> Any:
    return read_json(folder / name) if (folder / name).is_file() and _known(name, folder) else None


def _known(name: str, folder: Path) -> bool:
    """Whether the file has the form that the commands write: a run has an affinity.json of
    another one.
    """
    value = read_json(folder / name)
    if name == AFFINITY:
        return isinstance(value, dict) and "affinity" in value
    return isinstance(value, list) and all(
        {"tower", "probe", "layer"} <= each.keys() for each in value
    )


def _question_files(folder: Path, results: Mapping[str, Any] | None) -> list[Path]:
    """Files of questions, in the order of the sets in the results."""
    sets = dict.fromkeys(
        name for model in (results or {"models": {}})["models"].values() for name in model["sets"]
    )
    paths = [folder / "questions" / f"{name}.json" for name in sets]
    return [path for path in paths if path.is_file()]


def _questions(folder: Path, found: Mapping[str, Any], models: list[str]) -> list[Question]:
    name = found["set"]
    texts = [_predictions(folder / model / f"{model}_{name}.jsonl") for model in models]
    answers = [_answers(folder / model / f"{name}.answers.json") for model in models]
    made = []
    for each in found["questions"]:
        index = str(each["index"])
        scored = [known.get(index, {}) for known in answers]
        made.append(
            Question(
                questions=name,
                index=index,
                category=str(each["category"]),
                text=clipped(str(each["question"]), _LONGEST),
                options={k: clipped(str(v), _OPTION) for k, v in each["options"].items()},
                answer=clipped(str(each["answer"]), _LONGEST),
                pictures=tuple(each["pictures"]),
                predictions=tuple(known.get(index) for known in texts),
                credits=tuple(each.get("credit") for each in scored),
                understood=tuple(clipped(each.get("understood", ""), 60) for each in scored),
            )
        )
    return made


def _predictions(path: Path) -> dict[str, str]:
    return {
        str(line.get("index", "")): clipped(str(line["prediction"]), _LONGEST)
        for line in read_lines(path)
    }


def _answers(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    return {str(each["index"]): each for each in json.loads(path.read_text("utf-8"))["answers"]}

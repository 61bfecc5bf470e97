"""Predictions of a set, each kept as it comes, so that nothing is computed twice."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from glob import escape
from hashlib import blake2b
from pathlib import Path
from typing import IO

from sailvit.core.errors import DataError, RunError
from sailvit.core.records import Record
from sailvit.core.run import append_lines, read_lines
from sailvit.distributed.processes import as_one, barrier, rank, world
from sailvit.evaluation.suites.prompts import PromptForm, prompt_record, prompt_text
from sailvit.evaluation.suites.tables import QuestionTable

FAILED = "Failed to obtain answer via API."
"""What the kit writes where a model gave no answer; no rule finds anything in it."""
_CHUNK = 256
"""Questions handed to the model at once, which sorts their prompts by length."""


@dataclass(frozen=True)
class Prediction:
    """What a model answered."""

    text: str
    """The answer."""
    error: str = ""
    """Why there is none; empty: there is one."""


Predict = Callable[[Sequence[Record]], Iterator[tuple[int, Prediction]]]
"""The number of a record and its prediction, in any order, as they come."""


class PredictionStore:
    """A folder's files of predictions of one set, a file per process that wrote some.

    Every line is on its own, so a killed process loses at most the batch that it was at.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._own = folder / f"{name}.rank{rank()}.jsonl"

    def known(self) -> dict[str, Prediction]:
        """All predictions by key."""
        found = {}
        for path in sorted(self._folder.glob(f"{escape(self._name)}.rank*.jsonl")):
            try:
                for line in read_lines(path):
                    prediction = Prediction(line["prediction"], line.get("error", ""))
                    # What failed is tried again: a repaired file may have changed it.
                    if not prediction.error:
                        found[line["key"]] = prediction
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"{path} holds lines that are no predictions ({error}); move it away or"
                    " give another folder with --out"
                ) from error
        return found

    def open(self) -> None:
        """Prepare this process's file: the beginning of a line, as a killed process leaves it,
        is cut off.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._own.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            while end and not _ends_line(file, end):
                end -= 1
            file.truncate(end)

    def add(self, entries: Sequence[tuple[str, str, Prediction]]) -> None:
        """Keep predictions, each with its key and the index of its question."""
        append_lines(
            self._own,
            [
                {"key": key, "index": index, "prediction": each.text}
                | ({"error": each.error} if each.error else {})
                for key, index, each in entries
            ],
        )


def predict_set(
    table: QuestionTable,
    form: PromptForm,
    predict: Predict,
    store: PredictionStore,
    *,
    identity: str,
    limit: int | None = None,
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> list[Prediction]:
    """A prediction per row of the table, in order; `limit` takes so many from the start.

    What the store knows for the same model and settings (`identity`), prompt and image is not
    asked again. Several processes share the questions and all return all predictions. `seen` is
    called with the numbers of predictions that are there and of all.
    """
    positions = range(min(len(table), limit or len(table)))
    keys = [_key(table, position, form, identity) for position in positions]
    known = store.known()
    counts = Counter(keys)
    missing = _missing(keys, known)
    # Every process has read the store before any writes to it: they share one list.
    barrier()
    store.open()
    # Dealt in turn, as sets stand in order of their categories, whose answers differ in length.
    mine, done = missing[rank() :: world()], sum(key in known for key in keys)
    seen(done, len(positions))
    with as_one():
        for batch in _asked(table, mine, form, predict):
            store.add([(keys[at], table.rows[at].get("index", ""), each) for at, each in batch])
            known |= {keys[at]: each for at, each in batch}
            done += sum(counts[keys[at]] for at, _ in batch) * world()
            seen(min(done, len(positions)), len(positions))
    if world() > 1:
        known = store.known() | known
    return [known.get(key, Prediction(FAILED, "another process could not ask it")) for key in keys]


def _asked(
    table: QuestionTable, positions: Sequence[int], form: PromptForm, predict: Predict
) -> Iterator[list[tuple[int, Prediction]]]:
    """Positions with their predictions, as they come."""
    for start in range(0, len(positions), _CHUNK):
        yield from _answered(table, positions[start : start + _CHUNK], form, predict)


def _answered(
    table: QuestionTable, positions: Sequence[int], form: PromptForm, predict: Predict
) -> Iterator[list[tuple[int, Prediction]]]:
    """Positions with their predictions, as they come; first those that cannot be asked."""
    records: list[Record] = []
    asked: list[int] = []
    failed: list[tuple[int, Prediction]] = []
    for position in positions:
        try:
            images = table.images(position)
            records.append(prompt_record(table.cells[position], images, form))
            asked.append(position)
        except DataError as error:
            failed.append((position, Prediction(FAILED, str(error))))
    if failed:
        yield failed
    for number, prediction in predict(records):
        yield [(asked[number], prediction)]


def _missing(keys: Sequence[str], known: Container[str]) -> list[int]:
    """Positions whose keys are not known; of those that ask the same, as all rotations of a
    question do when it is asked bare, the first.
    """
    first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
    return sorted(at for key, at in first.items() if key not in known)


def _key(table: QuestionTable, position: int, form: PromptForm, identity: str) -> str:
    text = prompt_text(table.cells[position], form)
    facts = [identity, table.image_digest(position), text, form.marks]
    return blake2b(json.dumps(facts).encode(), digest_size=12).hexdigest()


def _ends_line(file: IO[bytes], end: int) -> bool:
    file.seek(end - 1)
    return file.read(1) == b"\n"

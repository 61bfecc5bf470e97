"""Scores of records, read from the JSONL that a judge wrote."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from sailvit.core.errors import DataError
from sailvit.dataprep.records.hashes import content_hash
from sailvit.dataprep.records.record_view import RecordView
from sailvit.dataprep.records.words import text_bytes


class ScoreTable:
    """Scores by record id, or by position where the lines give no id; 16 bytes of memory per
    line.
    """

    def __init__(self, path: Path, source: str | None) -> None:
        # Not lists, in which a number and its pointer take 32 bytes and more.
        keys, scores = array("Q"), array("d")
        self._by_id: bool | None = None
        for number, line in enumerate(_lines(path), 1):
            row = _row(line, f"{path}:{number}")
            if source is not None and row.get("source") != source:
                continue
            by_id = row.get("id") is not None
            if self._by_id not in (None, by_id):
                raise DataError(
                    f"{path}:{number}: found {'an id' if by_id else 'a position'} unlike in the"
                    " lines before; expected all lines to name records the same way: split the"
                    " file"
                )
            self._by_id = by_id
            if (score := _score(row)) is not None:
                keys.append(_id_key(str(row["id"])) if by_id else int(row["position"]))
                scores.append(score)
        if not keys:
            raise DataError(
                f"{path} holds no score{f' of source {source}' if source else ''}; expected JSONL of"
                " `score` with `id` or `position`: run the judge first, or correct the name"
            )
        # Stable, so that of several lines about one record the last stands last: it counts.
        order = np.argsort(np.frombuffer(keys, dtype=np.uint64), kind="stable")
        self._keys = np.frombuffer(keys, dtype=np.uint64)[order]
        self._scores = np.frombuffer(scores, dtype=np.float64)[order]

    def of(self, view: RecordView) -> float | None:
        """The score of a record; None: it has none."""
        key = np.uint64(_id_key(view.record.id) if self._by_id else view.position)
        # The last of equal keys, which is the last line about the record.
        place = int(np.searchsorted(self._keys, key, side="right")) - 1
        return float(self._scores[place]) if place >= 0 and self._keys[place] == key else None


def _lines(path: Path) -> Iterator[bytes]:
    if not path.is_file():
        raise DataError(
            f"{path} is not a file; expected the JSONL of scores that `sailvit data judge` writes"
        )
    with path.open("rb") as file:
        yield from (line for line in file if not line.isspace())


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}); expected one object per line") from error
    usable = isinstance(row, dict) and (
        row.get("id") is not None or isinstance(row.get("position"), int)
    )
    if not usable or not isinstance(row.get("score"), int | float | None):
        raise DataError(
            f"{where}: found {str(row)[:80]}; expected a number `score` with `id` or `position`"
        )
    return row


def _score(row: dict[str, Any]) -> float | None:
    """The score in a row; None: it has none, or it is NaN."""
    score = row.get("score")
    return None if score is None or isnan(score) else float(score)


def _id_key(name: str) -> int:
    # 64 bits are enough: two of a billion ids collide with probability 0.03.
    return content_hash(text_bytes(name))[1]

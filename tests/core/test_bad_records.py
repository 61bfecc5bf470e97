"""Bad records: what is said of an error, and lines of files that earlier versions wrote."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from sailvit.core.bad_records import BadRecord, bad_record, left_out, merged_quarantines
from sailvit.core.errors import DataError

OLD_BAD = {"source": "0.tar", "position": None, "id": None, "kind": "crc", "reason": "it differs"}
OLD_LINE: dict[str, Any] = {
    "stage": "fine", "stage_index": 1, "rank": 0, "step": 4, "source": "pairs", "position": 4,
    "id": "", "kind": "image", "reason": "half of it is missing", "shard": None, "offset": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (DataError("it  is\ncut", kind="image"), "image", "it is cut"),
        (FileNotFoundError("gone"), "unreadable", "FileNotFoundError: gone"),
        (KeyError("x"), "unexpected", "KeyError: 'x'"),
    ],
)
def test_an_error_has_a_kind_and_a_reason(error: Exception, kind: str, reason: str):
    bad = bad_record("set", 8, error, name="\ud800", place=("d.jsonl", 9))
    assert (bad.kind, bad.reason, bad.id, bad.place) == (kind, reason, "\\ud800", "d.jsonl:9")
    assert BadRecord.from_line(json.loads(json.dumps(asdict(bad)))) == bad


def test_lines_of_earlier_versions_are_read():
    assert BadRecord.from_line(OLD_BAD) == BadRecord(
        source="0.tar", kind="crc", reason="it differs"
    )
    (bad,) = merged_quarantines([OLD_LINE])
    assert (bad.stage, bad.step, bad.position, bad.count) == ("fine", 4, 4, 1)


def test_a_step_that_was_repeated_counts_once():
    other = {**OLD_LINE, "rank": 1}
    found = merged_quarantines([OLD_LINE, {**OLD_LINE, "step": 2}, OLD_LINE, other])
    assert [(bad.step, bad.rank) for bad in found] == [(2, 0), (4, 0), (4, 1)]
    assert left_out(found) == {"pairs": {"image": 3}}

"""What a source can do beside giving records is told by its members, and what it cannot has a plain answer."""

from __future__ import annotations

from sailvit.core.bad_records import BadRecord
from sailvit.core.records import (
    Faulted,
    Fetched,
    Placed,
    Record,
    Sharded,
    faults_of,
    place_of,
    shards_of,
)

FAULT = BadRecord(shard="a.tar", offset=512, kind="cut shard", reason="it ends early")


class Plain:
    """A source that can do nothing beside."""

    fingerprint = "plain"

    def __len__(self) -> int:
        return 5

    def __getitem__(self, position: int) -> Record:
        return Record(str(position), ())


class Able(Plain):
    """A source that can do all."""

    faults = (FAULT,)
    shards = (2, 3)

    def place(self, position: int) -> tuple[str, int]:
        return "a.tar", position

    def fetch(self, shards: object) -> None:
        del shards


def test_a_source_that_can_do_nothing_beside_has_plain_answers():
    assert (faults_of(Plain()), shards_of(Plain())) == ((), (5,))
    assert place_of(Plain(), 3) == (None, None)
    assert not isinstance(Plain(), Faulted | Sharded | Placed | Fetched)


def test_abilities_are_told_by_members():
    assert (faults_of(Able()), shards_of(Able())) == ((FAULT,), (2, 3))
    assert [fault.source for fault in faults_of(Able(), "tars")] == ["tars"]
    assert place_of(Able(), 3) == ("a.tar", 3)
    assert all(isinstance(Able(), ability) for ability in (Faulted, Sharded, Placed, Fetched))

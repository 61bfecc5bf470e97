"""A model in this process, asked in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from sailvit.core.errors import DataError
from sailvit.core.records import Record
from sailvit.dataprep.annotate.cache import ReplyCache, question_key
from sailvit.dataprep.annotate.replies import Reply, Usage

Answer = Callable[[Sequence[Record]], Sequence[str]]
"""Generates one text per record."""


class LocalModel:
    """Asks a model in this process about records, unless the cache has the reply."""

    def __init__(
        self, answer: Answer, identity: str, *, cache: ReplyCache | None = None, batch: int = 16
    ) -> None:
        self.usage = Usage()
        self._answer = answer
        self._identity = identity
        self._cache = cache
        self._batch = batch

    def ask(self, records: Iterable[Record]) -> Iterator[Reply]:
        """One reply per record, in order."""
        waiting = iter(records)
        while batch := list(islice(waiting, self._batch)):
            known = [self._recall(record) for record in batch]
            new = iter(
                self._replies(
                    [
                        record
                        for record, (_, reply) in zip(batch, known, strict=True)
                        if reply is None
                    ]
                )
            )
            for key, reply in known:
                if reply is not None:
                    yield reply
                    continue
                fresh = next(new)
                self.usage.took(fresh)
                if self._cache is not None and key:
                    self._cache.store(key, fresh)
                yield fresh

    def _recall(self, record: Record) -> tuple[str, Reply | None]:
        """The record's key with the cached reply, or no key and the reason."""
        try:
            key = question_key(self._identity, record)
        except DataError as error:
            self.usage.add("failed")
            return "", Reply(error=str(error))
        reply = self._cache.recall(key) if self._cache is not None else None
        self.usage.add("remembered", int(reply is not None))
        return key, reply

    def _replies(self, records: Sequence[Record]) -> list[Reply]:
        """The model's replies. If a batch fails, its records are asked about one by one, so
        that only the bad one fails.
        """
        if not records:
            return []
        self.usage.add("requests")
        try:
            return [Reply(text) for text in self._answer(records)]
        except DataError as error:
            if len(records) == 1:
                return [Reply(error=str(error))]
            return [reply for record in records for reply in self._replies([record])]

"""Replies on disk by the content of what was asked, so that nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from pathlib import Path

from sailvit.core.errors import DataError
from sailvit.core.records import Record
from sailvit.dataprep.annotate.replies import Reply
from sailvit.dataprep.llava_rows import portable


class ReplyCache:
    """Replies in one SQLite file, each written as it comes: a killed run has everything it has
    paid for.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            names = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master")}
            if names and "replies" not in names:
                self._connection.close()
                raise DataError(
                    f"{path} is a database of another program; name another file for the replies"
                )
            # One process writes at a time; the journal keeps the file whole when that process
            # is killed.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)"
            )
        except sqlite3.Error as error:
            raise DataError(
                f"{path} cannot be used as a cache of replies ({error}); delete it or name another"
            ) from error

    def recall(self, key: str) -> Reply | None:
        """The reply stored under a key; None when there is none."""
        with self._lock:
            row = self._connection.execute(
                "SELECT reply FROM replies WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Reply(**json.loads(row[0]))

    def store(self, key: str, reply: Reply) -> None:
        """Keep a reply; failures are not kept, so that the next run asks again."""
        if reply.error is not None:
            return
        counts = {"prompt_tokens": reply.prompt_tokens, "answer_tokens": reply.answer_tokens}
        line = json.dumps({"text": reply.text, **counts}, ensure_ascii=False)
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, line))

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()


def question_key(model: str, record: Record) -> str:
    """Hash of a model's identity, a record's turns and the bytes of its images; its id does not
    matter.
    """
    digest = hashlib.sha256(
        json.dumps([model, [(turn.role, turn.text) for turn in record.turns]]).encode()
    )
    for image in record.images:
        digest.update(hashlib.sha256(portable(image)[0]).digest())
    return digest.hexdigest()

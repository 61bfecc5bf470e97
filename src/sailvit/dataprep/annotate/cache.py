"""Replies on disk, found by the content of the question, so that nothing is paid for twice."""

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
    """Replies in one SQLite file. Each is written as it comes, so that a killed run keeps all
    that it has paid for.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite's own check of threads is off below; this lock lets one at a time in.
        self._lock = threading.Lock()
        try:
            # No isolation level: every INSERT is a transaction of its own and on disk at once.
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            names = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master")}
            if names and "replies" not in names:
                self._connection.close()
                raise DataError(
                    f"{path} is a database of another program; name another file for the replies"
                )
            # With this journal the file stays whole when the process is killed.
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)"
            )
        except sqlite3.Error as error:
            raise DataError(
                f"{path} cannot be used as a cache of replies ({error}); delete it or name another"
            ) from error

    def recall(self, key: str) -> Reply | None:
        """The reply stored under a key; None: there is none."""
        with self._lock:
            row = self._connection.execute(
                "SELECT reply FROM replies WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Reply(**json.loads(row[0]))

    def store(self, key: str, reply: Reply) -> None:
        """Store a reply; failures are not stored, so that the next run asks again."""
        if reply.error is not None:
            return
        counts = {"prompt_tokens": reply.prompt_tokens, "answer_tokens": reply.answer_tokens}
        line = json.dumps({"text": reply.text, **counts}, ensure_ascii=False)
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, line))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def question_key(model: str, record: Record) -> str:
    """Hash of a model's identity, a record's turns and the bytes of its images, but not of the
    record's id.
    """
    digest = hashlib.sha256(
        json.dumps([model, [(turn.role, turn.text) for turn in record.turns]]).encode()
    )
    for image in record.images:
        digest.update(hashlib.sha256(portable(image)[0]).digest())
    return digest.hexdigest()

"""A file of questions to a file of answers, which goes on where it was stopped.

Every answer is a line with the key of its question: a hash of the row, of the model and of how
it is asked. A run that was killed leaves whole lines and perhaps the beginning of one, which is
cut off; what has its key in the file is not asked again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sailvit.core.errors import DataError, RunError, one_line
from sailvit.core.outputs import write_output
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record
from sailvit.core.run import append_lines, read_lines
from sailvit.data.rows.conversations import conversation_record, row_images, row_name
from sailvit.data.rows.row import RowFile, RowOptions
from sailvit.data.rows.turns import has_turns
from sailvit.inference.conversation import question
from sailvit.inference.generation import Options
from sailvit.inference.model import RunModel

_ROUNDS = 4
"""Batches that are read at once, so that their prompts can be sorted by length."""
_BEGINNING = b'{"id": '
"""How every line of answers begins."""
_QUESTIONS = ("question", "query", "prompt", "text")
"""Keys of a row that may hold its question; the first one counts."""


@dataclass(frozen=True)
class Row:
    """A question of the file."""

    position: int
    """Its number, from 0."""
    name: str
    """The row's `id`, or its number."""
    key: str
    """Hash of the row, the files of its images, the model and the options."""
    fields: Mapping[str, Any] | None
    """The row; None where it cannot be read."""
    error: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True)
class Asked:
    """What was done with a file of questions."""

    answered: int
    """Questions that were answered now."""
    known: int
    """Questions that had been answered before."""
    errors: tuple[tuple[str, str], ...]
    """Places (file and line) and reasons of questions that could not be asked."""


def answer_file(
    model: RunModel,
    questions: Path,
    out: Path,
    options: Options,
    *,
    identity: str,
    images: Path | None = None,
    batch: int = 16,
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> Asked:
    """Answer the rows of `questions`, a file of JSON lines, that `out` has no answer to, each in
    a line of `out`.

    Rows that cannot be asked are listed in `<out>.errors.jsonl` and tried again next time.
    With `identity`, which no other model has, answers of another model are refused. `images` is
    the folder of relative image paths; None: the questions' folder. `seen` is called with the
    numbers of questions done and of all.

    Raises:
        RunError: `out` holds other lines, or another process writes to it.
        DataError: `questions` is no file of rows.
    """
    rows = RowFile(
        SourceConfig(format="questions", path=str(questions.resolve())), Path(), RowOptions()
    )
    # With other options an answer would be another one.
    identity = f"{identity} {options.longest} {sorted(options.settings.items())}"
    errors: list[tuple[str, str]] = []
    with _locked(out):
        done = _keys(out)
        folder = images or rows.images
        every = [_row(rows, position, identity, folder) for position in range(len(rows))]
        _refuse_others(out, done, {row.key for row in every})
        waiting = [row for row in every if row.key not in done]
        for start in range(0, len(waiting), batch * _ROUNDS):
            some = waiting[start : start + batch * _ROUNDS]
            answers = list(_answers(model, some, folder, options, batch))
            pairs = list(zip(some, answers, strict=True))
            errors += [(_place(rows, row), why) for row, (_, why) in pairs if why]
            good = [(row, text) for row, (text, why) in pairs if not why]
            append_lines(out, [{"id": r.name, "answer": text, "key": r.key} for r, text in good])
            seen(len(every) - len(waiting) + start + len(some), len(every))
    _list_errors(out, errors)
    return Asked(len(waiting) - len(errors), len(every) - len(waiting), tuple(errors))


def row_question(fields: Mapping[str, Any], folder: Path, name: str) -> Record:
    """The record of a row: `{"question": ..., "image": ...}` (or `images`, or neither), or a
    conversation in a layout that training reads, of which the last answer is asked for.
    """
    images = row_images(fields, folder)
    if has_turns(fields):
        return conversation_record(
            fields, images, name=name, kind="chat", mark="prepend", read=("image", "images")
        )
    key = next((key for key in _QUESTIONS if isinstance(fields.get(key), str)), None)
    if key is None:
        raise DataError(
            f"found {one_line(', '.join(fields) or 'nothing', 120)}; expected `question` and, for a"
            " question about images, `image` or `images`; or turns in `messages`"
        )
    system = fields.get("system")
    return question(list(images), fields[key], system if isinstance(system, str) else None)


def _row(rows: RowFile, position: int, identity: str, folder: Path) -> Row:
    try:
        fields, error = rows[position], ""
    except DataError as failed:
        fields, error = None, str(failed)
    # With its position, as a file that asks the same twice gets two answers.
    text = json.dumps(fields, sort_keys=True) + identity + str(position) + _files(fields, folder)
    key = blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return Row(position, row_name(fields or {}, position), key, fields, error)


def _files(fields: Mapping[str, Any] | None, folder: Path) -> str:
    """Path, size in bytes and time of the last change in ns of each image file of a row."""
    try:
        files = [image for image in row_images(fields or {}, folder) if isinstance(image, Path)]
        said = [(file.resolve(), file.stat()) for file in files]
    except (DataError, OSError):
        # The row cannot be asked, which is told when its turn comes.
        return ""
    return "".join(f" {path} {found.st_size} {found.st_mtime_ns}" for path, found in said)


def _answers(
    model: RunModel, rows: Sequence[Row], folder: Path, options: Options, batch: int
) -> Iterator[tuple[str, str]]:
    """An answer or a reason for each row."""
    records = [_record(row, folder) for row in rows]
    good = [record for record, _ in records if record is not None]
    try:
        answers = iter([(text, "") for text in model.answers(good, options, batch=batch)])
    except DataError:
        # One of them cannot be asked: one at a time shows which.
        answers = (_alone(model, record, options) for record in good)
    return (("", why) if record is None else next(answers) for record, why in records)


def _record(row: Row, folder: Path) -> tuple[Record | None, str]:
    if row.fields is None:
        return None, row.error
    try:
        return row_question(row.fields, folder, row.name), ""
    except DataError as error:
        return None, str(error)


def _alone(model: RunModel, record: Record, options: Options) -> tuple[str, str]:
    try:
        return model.answers([record], options, batch=1)[0], ""
    except DataError as error:
        return "", str(error)


def _place(rows: RowFile, row: Row) -> str:
    file, line = rows.place(row.position)
    return (
        f"{Path(file).name} row {row.position + 1}"
        if line is None
        else f"{Path(file).name} line {line}"
    )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """A context in which no other process writes answers to `out`; it makes the file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another process writes answers to {out}; wait for it, or give another name"
            ) from error
        yield


def _keys(out: Path) -> set[str]:
    """The keys of the answers in `out`, after the beginning of a last line was cut off."""
    with out.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end and not _ends_line(file, end):
            end -= 1
        file.seek(end)
        rest = file.read(len(_BEGINNING))
        try:
            lines = list(read_lines(out))
        except ValueError as error:
            raise _foreign(out) from error
        known = all({"id", "answer", "key"} <= _names(line) for line in lines)
        if not known or not _BEGINNING.startswith(rest):
            raise _foreign(out)
        # Only once every whole line is known to be ours.
        file.truncate(end)
    return {str(line["key"]) for line in lines}


def _names(line: Any) -> set[str]:
    return set(line) if isinstance(line, dict) else set()


def _ends_line(file: Any, end: int) -> bool:
    file.seek(end - 1)
    return bool(file.read(1) == b"\n")


def _foreign(out: Path) -> RunError:
    return RunError(
        f"{out} holds lines that are no answers of this command; give another name with --out"
    )


def _refuse_others(out: Path, done: set[str], asked: set[str]) -> None:
    if done and not done <= asked:
        raise RunError(
            f"{out} holds {len(done - asked):,} answers to other questions or about other images, of"
            " another model or to other settings; give another name with --out"
        )


def _list_errors(out: Path, errors: Sequence[tuple[str, str]]) -> None:
    """Write the reasons beside the answers; without any, an earlier list becomes empty."""
    file = out.with_name(out.name + ".errors.jsonl")
    if errors or file.exists():
        lines = (json.dumps({"place": place, "error": why}) + "\n" for place, why in errors)
        write_output(file, "".join(lines))

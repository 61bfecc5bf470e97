"""Turns captions into questions with answers, written as LLaVA rows beside their images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from sailvit.core.atomic import whole_file
from sailvit.core.records import IMAGE_MARK, ImageLike, Record, Source, Turn
from sailvit.dataprep.annotate.prompts import prompt_record
from sailvit.dataprep.annotate.replies import Asked, Responder, ask_about
from sailvit.dataprep.llava_rows import encoded, llava_row

MOST = 20
"""Most pairs of one record; a model that writes more repeats itself."""


def _no_mark(text: str) -> str:
    # The mark would ask for an image that the row does not have.
    if IMAGE_MARK in text:
        raise ValueError(f"holds {IMAGE_MARK}")
    return text


Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_no_mark)
]


class Pair(BaseModel):
    """A question with its answer."""

    model_config = ConfigDict(frozen=True)
    question: Text
    """The question about the image."""
    answer: Text
    """Its answer."""


Pairs: TypeAlias = Annotated[list[Pair], Field(min_length=1, max_length=MOST)]


@dataclass
class Harvest:
    """Counts of what was made from the captions."""

    records: int = 0
    """Records with questions."""
    pairs: int = 0
    """Questions with answers."""
    bad: int = 0
    """Replies that were no list of pairs."""
    failed: int = 0
    """Records that could not be read or got no reply."""


def write_pairs(
    source: Source,
    templates: Sequence[str],
    responder: Responder,
    *,
    out: Path,
    positions: Iterable[int] | None = None,
    report: Callable[[], None] = lambda: None,
) -> Harvest:
    """Ask a model for questions about every record of `source`, and write them to `out`, in
    order, as one row per record.

    The file appears when it is complete; its images lie in the folder `<name>-images` beside
    it. Records without questions are listed in `<name>-bad.jsonl` with the reason. `report` is
    called once per record.
    """
    chosen = range(len(source)) if positions is None else positions
    harvest, bad = Harvest(), out.with_name(out.stem + "-bad.jsonl")
    asked = ask_about(
        source,
        lambda record, at: prompt_record(record, templates[at % len(templates)]),
        responder,
        chosen,
    )
    with (
        whole_file(out) as draft,
        draft.open("w", encoding="utf-8") as rows,
        bad.open("w", encoding="utf-8") as rest,
    ):
        for item in asked:
            row, problem = _row(item, out, harvest)
            if row is not None:
                rows.write(json.dumps(row, ensure_ascii=False) + "\n")
            if problem is not None:
                rest.write(json.dumps(problem, ensure_ascii=False) + "\n")
            report()
    return harvest


def read_pairs(text: str) -> list[Pair]:
    """The pairs in a model's reply; ValueError if it holds no such list."""
    # Models often put a sentence or a code block's fences around the list that was asked for.
    begin, end = text.find("["), text.rfind("]")
    if begin < 0 or end < begin:
        raise ValueError("no JSON list")
    try:
        return TypeAdapter(Pairs).validate_json(text[begin : end + 1])
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"{'.'.join(map(str, first['loc'])) or 'the list'}: {first['msg']}"
        ) from error


def _row(
    item: Asked, out: Path, harvest: Harvest
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The row of one record, or the line that says why it has none."""
    problem = {"position": item.position, "id": item.record.id if item.record else ""}
    if item.reply.error is not None or item.record is None:
        harvest.failed += 1
        return None, {**problem, "raw": "", "error": item.reply.error}
    try:
        pairs = read_pairs(item.reply.text)
    except ValueError as error:
        harvest.bad += 1
        return None, {**problem, "raw": item.reply.text, "error": str(error)}
    harvest.records += 1
    harvest.pairs += len(pairs)
    images = [_keep(image, out) for image in item.record.images]
    # The images come once, before the first question.
    turns = [
        turn
        for index, pair in enumerate(pairs)
        for turn in (
            Turn("user", (f"{IMAGE_MARK}\n" * len(images) if index == 0 else "") + pair.question),
            Turn("assistant", pair.answer),
        )
    ]
    return llava_row(Record(item.record.id, tuple(turns), item.record.images, "qa"), images), None


def _keep(image: ImageLike, out: Path) -> str:
    """Put an image beside the rows and return its name, which is a hash of its content.

    A file becomes a hard link, which takes no space on the disk.
    """
    data, kind = encoded(image)
    name = f"{out.stem}-images/{blake2b(data, digest_size=16).hexdigest()}.{kind}"
    path = out.parent / name
    # Its name is a hash, so one that is there is the same.
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        if not (isinstance(image, Path) and _linked(image, path, len(data))):
            with whole_file(path) as draft:
                draft.write_bytes(data)
    return name


def _linked(image: Path, path: Path, size: int) -> bool:
    """Make `path` a hard link to an image file; the result says whether that worked.

    A file of another size than `size` was converted, so it is not what the row shows; and no
    link can lead to another file system.
    """
    try:
        same = image.stat().st_size == size
        if same:
            # A hard link to a symbolic one would break when its target is named from elsewhere.
            os.link(image.resolve(), path)
    except OSError:
        return False
    return same

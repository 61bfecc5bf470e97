"""What a page about an evaluation shows: questions with small pictures, and what each answer
counts. Pages are made from these files alone, where neither tables nor models are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from sailvit.core.errors import DataError
from sailvit.core.run import read_json, write_json
from sailvit.data.processing.images import load_image, thumbnail_uri
from sailvit.evaluation.scoring.results import SetScore
from sailvit.evaluation.scoring.rows import options_of
from sailvit.evaluation.suites.planning import PlannedSet
from sailvit.evaluation.suites.tables import QuestionTable

FOLDER = "questions"
"""Folder of the questions that a page shows, a file per set."""
_SHOWN = 5000
"""Most questions of all sets together."""
_CHARACTERS = 9_000_000
"""Characters of all pictures, as they stand in the page."""
_SMALL = 96
"""Images of up to so many pixels each way are shown without loss."""
_SIZES = ((160, 60), (128, 50), (96, 40), (64, 30))
"""Sides and qualities of pictures, from the best on."""
_IMAGES = 2
"""Most pictures of a question."""


def write_answers(folder: Path, name: str, score: SetScore) -> None:
    """Write what each answer of a model to a set counts."""
    write_json(
        folder / f"{name}.answers.json",
        {"answers": [asdict(each) for each in score.answers], "unparsed": score.unparsed},
    )


def write_questions(out: Path, sets: Sequence[PlannedSet], limit: int | None) -> None:
    """Write the questions of each set that a page shows; those that are there stay.

    `limit` is how many questions of each set were asked, from the start; None: all.
    """
    counts = [min(len(each.table), limit or len(each.table)) for each in sets]
    shares = shared_out(counts, _SHOWN)
    room = _CHARACTERS // max(1, min(sum(shares), sum(counts)))
    for each, count, share in zip(sets, counts, shares, strict=True):
        name = each.questions.name
        facts: dict[str, Any] = {"set": name, "kind": each.questions.kind, "md5": each.table.md5}
        facts |= {"count": count, "shown": share, "room": room}
        digests = "".join(each.table.image_digest(position) for position in range(count))
        facts |= {"images": blake2b(digests.encode(), digest_size=12).hexdigest()}
        path = out / FOLDER / f"{name}.json"
        if not (path.is_file() and facts.items() <= read_json(path).items()):
            write_json(path, {**facts, **_questions(each.table, count, share, room)})


def shared_out(counts: Sequence[int], most: int) -> list[int]:
    """Shares of `most` that are as equal as the counts allow."""
    shares = [0] * len(counts)
    left, open_sets = most, sorted(range(len(counts)), key=counts.__getitem__)
    for place, number in enumerate(open_sets):
        shares[number] = min(counts[number], left // (len(counts) - place))
        left -= shares[number]
    return shares


def _questions(table: QuestionTable, count: int, share: int, room: int) -> dict[str, Any]:
    positions = np.unique(np.linspace(0, count - 1, share).round().astype(int)).tolist()
    pictures: dict[str, str] = {}
    shown = []
    for position in positions:
        row = table.rows[position]
        shown.append(
            {
                "index": row.get("index", ""),
                "question": row.get("question", ""),
                "options": options_of(table.cells[position]),
                "answer": row.get("answer", ""),
                "category": row.get("l2-category") or row.get("category", ""),
                "pictures": _pictures(table, position, room, pictures),
            }
        )
    return {"questions": shown, "pictures": pictures}


def _pictures(table: QuestionTable, position: int, room: int, known: dict[str, str]) -> list[str]:
    """Keys of a row's pictures, which are added to `known`; none where they cannot be read."""
    digest = table.image_digest(position)
    keys = [key for key in (f"{digest}-{number}" for number in range(_IMAGES)) if key in known]
    if keys:
        return keys
    try:
        for number, image in enumerate(table.images(position)[:_IMAGES]):
            if uri := _fitting(load_image(image), room):
                known[f"{digest}-{number}"] = uri
                keys.append(f"{digest}-{number}")
    except DataError:
        # The question itself could not be asked either, which the scores say.
        return keys
    return keys


def _fitting(pixels: np.ndarray, room: int) -> str | None:
    """The best picture within so many characters; None: even the smallest takes twice as many."""
    small = max(pixels.shape[:2]) <= _SMALL
    choices: list[tuple[int, int | None]] = [*([(_SMALL, None)] if small else []), *_SIZES]
    uri = ""
    for side, quality in choices:
        uri = thumbnail_uri(pixels, side, quality)
        if len(uri) <= room:
            return uri
    return uri if len(uri) <= 2 * room else None

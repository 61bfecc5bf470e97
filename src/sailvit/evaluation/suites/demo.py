"""The demo's suite: small tables in VLMEvalKit's layout, drawn from the demo's world, charts and
pages.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_uppercase

import numpy as np

from sailvit.core.atomic import whole_file
from sailvit.core.records import IMAGE_MARK, ImageLike, Record, Source
from sailvit.core.seeding import numpy_generator
from sailvit.data.processing.images import data_uri, load_image
from sailvit.evaluation.scoring.multiple_choice import ROTATION
from sailvit.evaluation.scoring.ocr import CATEGORIES
from sailvit.evaluation.suites.sets import QuestionSet
from sailvit.evaluation.world import held_out
from sailvit.synthetic.charts.source import ChartsOptions, ChartsSource
from sailvit.synthetic.documents.source import DocumentsOptions, DocumentsSource
from sailvit.synthetic.world.source import WorldSource
from sailvit.synthetic.world.tasks import EVAL_TASKS
from sailvit.synthetic.world.vocabulary import COLOURS, SHAPES

WORLD = QuestionSet("demo_world", "phrases")
"""What `sailvit demo` asks: every task that measures a tower, of held-out scenes."""
SETS = (
    WORLD,
    QuestionSet("demo_circular", "circular"),
    QuestionSet("demo_yes_no", "hallusion"),
    QuestionSet("demo_ocr", "ocrbench"),
    QuestionSet("demo_count", "exact"),
    QuestionSet("demo_two_images", "mcq"),
    QuestionSet("demo_charts", "relaxed"),
    QuestionSet("demo_pages", "anls"),
)
"""The suite's sets. They are asked bare: the world's small language knows no options."""

Row = dict[str, str]
_GROUPED = 4
"""Questions of yes or no in a set: two figures with two questions each."""


def write_suite(
    folder: Path, count: int, seed: int = 0, sets: Sequence[QuestionSet] = SETS
) -> list[Path]:
    """Write the suite's tables, of about `count` questions each, or of each task of the world;
    they are the same for the same arguments.
    """
    return [_write(folder / f"{each.name}.tsv", _ROWS[each.name](count, seed)) for each in sets]


def _world(count: int, seed: int) -> list[Row]:
    """Tasks one after the other, each named in `category`."""
    asked = held_out(EVAL_TASKS, count, seed)
    return [
        _row(number, record, record.turns[-1].text) | {"category": task}
        for number, (task, record) in enumerate(asked)
    ]


def _circular(count: int, seed: int) -> list[Row]:
    """The colour of a thing, with four colours as options in all rotations."""
    rows = []
    for number, record in enumerate(_records(WorldSource("held_out", "colour", count, seed))):
        answer = record.turns[-1].text
        rng = numpy_generator(seed, "demo", "options", number)
        texts = [answer, *_some([name for name in COLOURS if name != answer], 3, rng)]
        texts = [texts[place] for place in rng.permutation(4).tolist()]
        for turn in range(len(texts)):
            turned = texts[turn:] + texts[:turn]
            row = _row(number + turn * ROTATION, record, ascii_uppercase[turned.index(answer)])
            # A rotation names the row that holds its image.
            row |= dict(zip(ascii_uppercase, turned, strict=False))
            rows.append(row | ({"image": str(number)} if turn else {}) | {"category": "colour"})
    return rows


def _yes_no(count: int, seed: int) -> list[Row]:
    """Relations of things, in groups of figures and questions as in HallusionBench."""
    rows = []
    for number, record in enumerate(_records(WorldSource("held_out", "relation", count, seed))):
        group, place = divmod(number, _GROUPED)
        row = _row(0, record, record.turns[-1].text.capitalize())
        # HallusionBench's parts: category, kind, image, set, figure, question.
        row["index"] = f"VD_relation_1_{group}_{place // 2}_{place % 2}"
        rows.append(row | {"category": "VD", "l2-category": "VD_relation"})
    return rows


def _ocr(count: int, seed: int) -> list[Row]:
    """What is written; the world writes single letters with spaces."""
    records = _records(WorldSource("held_out", "ocr", count, seed))
    return [
        _row(number, record, repr([record.turns[-1].text])) | {"category": CATEGORIES[0]}
        for number, record in enumerate(records)
    ]


def _count(count: int, seed: int) -> list[Row]:
    """Counting, and heights of bars."""
    source = WorldSource("held_out", {"count": 1.0, "height": 1.0}, count, seed)
    return [
        _row(number, record, record.turns[-1].text) | {"category": record.kind}
        for number, record in enumerate(_records(source))
    ]


def _two_images(count: int, seed: int) -> list[Row]:
    """The shape of a thing in the second of two pictures."""
    records = _records(WorldSource("held_out", "shape", 2 * count, seed))
    rows = []
    for number, (first, second) in enumerate(zip(records[::2], records[1::2], strict=True)):
        answer = second.turns[-1].text
        rng = numpy_generator(seed, "demo", "shapes", number)
        # Sorted, so that the right one's place tells nothing.
        texts = sorted([answer, *_some([name for name in SHAPES if name != answer], 2, rng)])
        row = _row(number, second, ascii_uppercase[texts.index(answer)])
        row |= dict(zip(ascii_uppercase, texts, strict=False))
        rows.append(row | {"image": repr([_base64(first.images[0]), row["image"]])})
    return rows


def _charts(count: int, seed: int) -> list[Row]:
    """A question about a chart each."""
    source = ChartsSource(ChartsOptions(size=count, seed=seed, captions=0.0, questions=1))
    return _first_questions(source)


def _pages(count: int, seed: int) -> list[Row]:
    """A question about a page each."""
    options = DocumentsOptions(size=count, seed=seed, transcriptions=0.0, questions=1)
    return [row for row in _first_questions(DocumentsSource(options)) if len(row["answer"]) < 80]


_ROWS: dict[str, Callable[[int, int], list[Row]]] = {
    "demo_world": _world,
    "demo_circular": _circular,
    "demo_yes_no": _yes_no,
    "demo_ocr": _ocr,
    "demo_count": _count,
    "demo_two_images": _two_images,
    "demo_charts": _charts,
    "demo_pages": _pages,
}


def _first_questions(source: Source) -> list[Row]:
    return [
        _row(number, record, record.turns[1].text) for number, record in enumerate(_records(source))
    ]


def _records(source: Source) -> list[Record]:
    return [source[position] for position in range(len(source))]


def _row(index: int, record: Record, answer: str) -> Row:
    question = record.turns[0].text.replace(IMAGE_MARK, "").strip()
    return {
        "index": str(index),
        "image": _base64(record.images[0]),
        "question": question,
        "answer": answer,
    }


def _some(names: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    return [names[place] for place in rng.permutation(len(names))[:count].tolist()]


def _base64(image: ImageLike) -> str:
    return data_uri(load_image(image)).partition(",")[2]


def _write(path: Path, rows: Sequence[Row]) -> Path:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter="\t", lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    with whole_file(path) as draft:
        draft.write_text(text.getvalue(), encoding="utf-8")
    return path

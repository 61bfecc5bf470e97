"""Each filter objects to exactly what it should, for the reason it should."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from planted import noise, record

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.dataprep.curate.filters.base import outside
from sailvit.dataprep.curate.settings import FILTERS, Curation, filter_name, read_curation
from sailvit.dataprep.records.record_view import RecordView

BLANK = np.zeros((30, 60, 3), np.uint8)


def objection(
    name: str, settings: dict, found: Record, position: int = 0
) -> tuple[str, str] | None:
    made = FILTERS[name].model_validate(settings)
    made.check()
    return made.objection(RecordView(position, found))


ENGLISH = "A red circle stands left of the blue square in the garden."
GERMAN = "Ein roter Kreis liegt links von einem blauen Quadrat im Garten."

CASES = [
    (
        "resolution",
        {"side_at_least": 31},
        record(0, "x", [BLANK]),
        ("shorter side below 31", "60 x 30 px"),
    ),
    ("resolution", {"side_at_least": 30, "side_at_most": 60}, record(0, "x", [BLANK]), None),
    (
        "resolution",
        {"side_at_most": 59},
        record(0, "x", [BLANK]),
        ("longer side above 59", "60 x 30 px"),
    ),
    (
        "resolution",
        {"pixels_at_most": 1799},
        record(0, "x", [BLANK]),
        ("pixels above 1799", "60 x 30 px"),
    ),
    ("resolution", {"pixels_at_least": 1800}, record(0, "x", [BLANK]), None),
    ("resolution", {"side_at_least": 99}, record(0, "x"), None),
    (
        "aspect",
        {"at_most": 1.9},
        record(0, "x", [noise(0), BLANK]),
        ("aspect above 1.9", "60 x 30 px"),
    ),
    ("aspect", {"at_most": 2}, record(0, "x", [BLANK]), None),
    ("length", {"at_least": 5}, record(0, "four"), ("characters below 5", "4 characters")),
    (
        "length",
        {"at_most": 2, "unit": "words"},
        record(0, "one two three"),
        ("words above 2", "3 words"),
    ),
    ("length", {"at_least": 4, "unit": "words"}, record(0, "一只黑猫"), None),
    (
        "repetition",
        {"at_most": 0.5},
        record(0, "very nice " * 20),
        ("repeated words above 0.5", "0.947"),
    ),
    ("repetition", {"at_most": 0.5}, record(0, ENGLISH), None),
    (
        "repetition",
        {"at_most": 0.5, "n": 10, "unit": "characters"},
        record(0, "a" * 100),
        ("repeated characters above 0.5", "0.989"),
    ),
    ("repetition", {"at_most": 0.0}, record(0, "too short"), None),
    ("language", {"keep": ["en"]}, record(0, GERMAN), ("language de", "de")),
    ("language", {"keep": ["en", "de"]}, record(0, GERMAN), None),
    ("language", {"keep": ["en"]}, record(0, "42"), None),
    ("language", {"keep": ["en"], "short": "drop"}, record(0, "42"), ("language short", "short")),
    (
        "ocr",
        {"at_most": 0.3},
        record(0, 'It reads "STOP AND GO".'),
        ("share of read text above 0.3", "0.478"),
    ),
    (
        "ocr",
        {"at_most": 0.3},
        record(0, "Es steht „Halt“ auf dem grossen runden Schild dort."),
        None,
    ),
    (
        "ocr",
        {"at_most": 0.3},
        record(0, "all of it", kind="ocr"),
        ("share of read text above 0.3", "1"),
    ),
    (
        "ocr",
        {"at_least": 0.3},
        record(0, "nothing is read here"),
        ("share of read text below 0.3", "0"),
    ),
    (
        "length",
        {"at_least": 5, "kinds": ["qa"]},
        record(0, "four"),
        ("characters below 5", "4 characters"),
    ),
]


@pytest.mark.parametrize(
    ("name", "settings", "found", "expected"), CASES, ids=lambda value: str(value)[:30]
)
def test_objections(name: str, settings: dict, found: Record, expected: tuple[str, str] | None):
    assert objection(name, settings, found) == expected


def test_a_filter_looks_at_its_kinds_only():
    made = FILTERS["length"].model_validate({"at_least": 5, "kinds": ["qa"]})
    assert made.applies_to(RecordView(0, record(0, "x", kind="qa")))
    assert not made.applies_to(RecordView(0, record(0, "x")))


def test_every_filter_has_cases():
    assert {name for name, *_ in CASES} | {
        "scores",
        "similarity",
        "duplicate",
        "near_duplicate",
    } == set(FILTERS)


@pytest.mark.parametrize("key", ["id", "position"])
def test_scores_by_id_or_position(tmp_path: Path, key: str):
    path = tmp_path / "scores.jsonl"
    lines = [
        {"source": "a", key: 1, "score": 2},
        {"source": "b", key: 1, "score": 5},
        {key: 2, "score": 4.5, "source": "a"},
    ]
    lines += [{key: 1, "score": 3, "source": "a"}, {key: 3, "score": None, "source": "a"}]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    settings = {"file": str(path), "at_least": 4, "source": "a"}
    records = [record(str(position), "x") for position in range(5)]
    found = [objection("scores", settings, each, position) for position, each in enumerate(records)]
    missing = ("no score", "no score")
    assert found == [missing, ("score below 4", "3"), None, missing, missing]
    assert objection("scores", {**settings, "missing": "keep"}, records[4], 4) is None
    assert objection("scores", {"file": str(path), "at_most": 2}, records[1], 1) == (
        "score above 2",
        "3",
    )


def test_a_score_at_its_bound_is_kept_and_nan_is_no_score(tmp_path: Path):
    path = tmp_path / "scores.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"position": place, "score": score})
            for place, score in enumerate((0.7, 0.1, math.nan))
        )
    )
    records = [record(str(position), "x") for position in range(3)]

    def found(**bounds: float) -> list[bool]:
        settings = {"file": str(path), **bounds}
        return [objection("scores", settings, each, n) is None for n, each in enumerate(records)]

    assert found(at_least=0.7) == [True, False, False]
    assert found(at_most=0.1) == [False, True, False]
    assert objection("scores", {"file": str(path)}, records[2], 2) == ("no score", "no score")


def test_nan_is_within_no_bounds():
    assert outside("match", math.nan, at_least=0.3, at_most=None) == ("match below 0.3", "nan")
    assert outside("match", math.nan, at_least=None, at_most=0.3) == ("match above 0.3", "nan")
    assert outside("match", 0.3, at_least=0.3, at_most=0.3) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no score"),
        ("not json", "scores.jsonl:1 is not JSON"),
        ('{"score": 3}', "expected a number `score` with `id` or `position`"),
        ('{"id": "a", "score": "good"}', "expected a number"),
        (
            '{"id": "a", "score": 1}\n{"position": 3, "score": 1}',
            "jsonl:2: found a position unlike",
        ),
    ],
)
def test_scores_that_cannot_be_used_are_refused_before_the_first_record(
    tmp_path: Path, text: str, message: str
):
    path = tmp_path / "scores.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        FILTERS["scores"].model_validate({"file": str(path)}).check()


def test_a_missing_file_of_scores_is_named():
    with pytest.raises(DataError, match=r"nowhere.jsonl is not a file"):
        FILTERS["scores"].model_validate({"file": "nowhere.jsonl"}).check()


def test_settings_come_from_names_and_paths_start_at_their_folder(tmp_path: Path):
    (tmp_path / "s.jsonl").write_text("{}")
    document = {
        "filters": [
            {"scores": {"file": "s.jsonl", "at_least": 3}},
            {"similarity": {"model": "hub/id", "at_least": 0}},
        ],
        "resampling": {"n": 3},
        "seed": 4,
    }
    curation = read_curation(document, tmp_path)
    assert curation.filters[0].file == str(tmp_path / "s.jsonl")
    assert curation.filters[1].model == "hub/id"
    assert [filter_name(found) for found in curation.filters] == ["scores", "similarity"]
    assert (curation.resampling.n, curation.resampling.share, curation.seed) == (3, 0.05, 4)
    assert Curation.model_validate({"filters": curation.filters}).filters == curation.filters


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "found list; expected a mapping"),
        (
            {"filters": [{"lenght": {"at_least": 3}}]},
            "unknown filter 'lenght'; did you mean length",
        ),
        (
            {"filters": [{"length": {"least": 3}}]},
            r"length.least: .*known are kinds, at_least, at_most, unit",
        ),
        (
            {"filters": [{"aspect": {"at_most": 0.5}}]},
            "aspect.at_most: .*greater than or equal to 1",
        ),
        ({"filters": [{"aspect": None}]}, "aspect.at_most: Field required"),
        ({"filters": ["length"]}, "expected one filter with its settings"),
        ({"filters": {"length": {}}}, "filters: "),
        ({"filter": []}, "filter: .*known are filters, resampling, seed"),
    ],
)
def test_wrong_settings_are_explained(tmp_path: Path, document: object, message: str):
    with pytest.raises(DataError, match=message):
        read_curation(document, tmp_path)


def test_what_counts_as_a_copy():
    hashes = FILTERS["duplicate"].model_validate
    one = RecordView(0, record(0, "same  text", [b"a", b"b"]))
    other = RecordView(1, record(1, "same text", [b"a", b"c"]))
    turned = RecordView(2, Record("2", (Turn("assistant", "Describe."), Turn("user", "same text"))))
    assert hashes({"of": "record"}).hashes(one) != hashes({"of": "record"}).hashes(other)
    assert one.text_hash == RecordView(0, record(9, "same text", [b"x", b"y"])).text_hash
    assert turned.text_hash != one.text_hash
    images = hashes({"of": "image"}).hashes
    assert images(one)[0] == images(other)[0]
    assert images(one)[1] != images(other)[1]
    assert images(turned) == ()


def test_near_copies_may_ask_for_equal_text():
    made = FILTERS["near_duplicate"].model_validate({"distance": 4, "text": True})
    views = [
        RecordView(0, record(0, text, [noise(1)]))
        for text in ("one text", "one text", "another text")
    ]
    first, again, other = (made.hashes(view)[0] for view in views)
    assert first == again
    assert sum((a ^ b).bit_count() for a, b in zip(first, other, strict=True)) > 30
    assert made.reach() == 4

from __future__ import annotations

import hashlib
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.seeding import numpy_generator
from sailvit.data.processing.images import image_size, load_image
from sailvit.data.sources import open_source
from sailvit.synthetic.documents.degradation import Degradation, PageDrawing, some_degradation
from sailvit.synthetic.documents.fonts import CHARACTERS, faces_in, font, shipped_faces
from sailvit.synthetic.documents.layouts import LAYOUTS
from sailvit.synthetic.documents.source import (
    DocumentsOptions,
    DocumentsSource,
    open_documents,
    transcription,
)

PRINT = """
import hashlib
from sailvit.synthetic.documents.source import DocumentsOptions, DocumentsSource
source = DocumentsSource(DocumentsOptions(size=8, seed=5))
print(hashlib.sha256(b"".join(source[n].images[0].pixels().tobytes() for n in range(8))).hexdigest())
"""


def pages(**options) -> DocumentsSource:
    return DocumentsSource(DocumentsOptions.model_validate({"size": 40, **options}))


def test_a_record_depends_on_the_options_and_its_position_only():
    forward, longer = pages(seed=3), pages(size=10**8, seed=3)
    backward = {position: longer[position] for position in reversed(range(40))}
    assert [forward[position] for position in range(40)] == [
        backward[position] for position in range(40)
    ]


def test_a_text_is_drawn_in_fonts_that_have_its_characters(tmp_path: Path):
    (tmp_path / "text.txt").write_text("Погода сегодня хорошая\n", encoding="utf-8")
    options = DocumentsOptions(size=12, kinds="paragraphs", text="text.txt", worn=0.0)
    source = DocumentsSource(options, tmp_path)
    spans = [span for n in range(12) for span in source[n].images[0].page.spans]
    for face, size in {(span.face, span.size) for span in spans}:
        box = bytes(font(face, size).getmask("\uffff"))
        assert box not in {bytes(font(face, size).getmask(each)) for each in "Погдасеня"}
    (tmp_path / "text.txt").write_text("rain 今天\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"the best one lacks '今天': set `fonts`"):
        DocumentsSource(options, tmp_path)


def test_another_process_draws_the_same_bytes():
    there = subprocess.run(
        [sys.executable, "-c", PRINT], capture_output=True, text=True, check=True
    ).stdout.strip()
    source = pages(size=8, seed=5)
    assert (
        hashlib.sha256(
            b"".join(source[n].images[0].pixels().tobytes() for n in range(8))
        ).hexdigest()
        == there
    )


@pytest.mark.parametrize("kind", LAYOUTS)
def test_pixels_have_the_promised_size_and_never_change(kind):
    for record in (pages(kinds=kind)[position] for position in range(4)):
        (image,) = record.images
        first = load_image(image)
        assert image_size(image) == (first.shape[1], first.shape[0]) == image.size
        assert np.array_equal(first, image.pixels())


def test_a_record_asks_about_its_only_image():
    for record in (pages()[position] for position in range(40)):
        assert sum(turn.text.count("<image>") for turn in record.turns) == len(record.images) == 1
        assert record.kind == "ocr"
        assert all(turn.text.strip() for turn in record.turns)
        assert len({turn.text for turn in record.turns[::2]}) == len(record.turns) // 2


def test_transcriptions_come_by_their_share_and_state_the_order():
    source = pages(size=500, kinds="sign", transcriptions=0.3)
    whole = ["Write down all text" in source[position].turns[0].text for position in range(500)]
    assert np.mean(whole) == pytest.approx(0.3, abs=0.06)
    assert (
        "left column before the right one"
        in pages(kinds="columns", transcriptions=1)[0].turns[0].text
    )


def test_lines_are_counted_from_the_top():
    record = next(
        r for r in map(pages(kinds="paragraphs", transcriptions=0).__getitem__, range(40)) if r
    )
    page = record.images[0].page
    order = (
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
    )
    for question, answer in zip(record.turns[::2], record.turns[1::2], strict=True):
        ordinal = question.text.split("What does the ")[1].split(" ")[0]
        assert page.rows[order.index(ordinal)] == answer.text


def test_every_row_leaves_ink_where_it_is_said_to_stand():
    for position in range(10):
        page = pages(kinds=["receipt", "list", "columns"])[position].images[0].page
        pixels = PageDrawing(page, Degradation((255, 255, 255), (0, 0, 0))).pixels()
        for span in page.spans:
            left, upper, right, lower = map(round, span.box)
            assert (pixels[upper:lower, left:right] < 100).any(), span


def test_worn_pages_stay_readable():
    for number in range(300):
        degradation = some_degradation(numpy_generator(number), 14, worn=True)
        paper, ink = (np.array(colour).mean() for colour in (degradation.paper, degradation.ink))
        assert abs(paper - ink) > 90
        assert degradation.blur < 0.7
        assert some_degradation(numpy_generator(number), 14, worn=False).angle == 0


@pytest.mark.parametrize(
    "change", [{"angle": 1.0}, {"blur": 1.0}, {"grain": 5.0}, {"shade": 20.0}, {"quality": 50}]
)
def test_every_kind_of_wear_is_seen(change):
    page = pages(kinds="table")[0].images[0].page
    clean = Degradation((250, 250, 250), (10, 10, 10))
    difference = np.abs(
        PageDrawing(page, clean).pixels().astype(int)
        - PageDrawing(page, replace(clean, **change)).pixels()
    )
    assert 0 < difference.mean() < 30


def test_the_users_text_and_fonts_are_used(tmp_path):
    (tmp_path / "lines.txt").write_text("Blue boats sail.\n\nGrey <image> gulls cry.\n")
    (tmp_path / "fonts").mkdir()
    shutil.copy(shipped_faces()[1], tmp_path / "fonts" / "Only.ttf")
    (tmp_path / "fonts" / "broken.otf").write_bytes(b"no font")
    config = SourceConfig(
        format="documents",
        options={"size": 5, "kinds": "paragraphs", "text": "lines.txt", "fonts": "fonts"},
    )
    source = open_documents(config, tmp_path)
    page = source[0].images[0].page
    assert {Path(span.face).name for span in page.spans} == {"Only.ttf"}
    assert set(" ".join(page.rows).split()) <= {"Blue", "boats", "sail.", "Grey", "gulls", "cry."}
    assert transcription(page)[1] == "\n".join(page.rows)
    before = source.fingerprint
    (tmp_path / "lines.txt").write_text("Other words.")
    assert open_documents(config, tmp_path).fingerprint != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 5, "kinds": "recept"}, "write receipt"),
        ({"size": 5, "kinds": {}}, "at least 1"),
        ({"kinds": "sign"}, "size"),
        ({"size": 5, "worn": 2}, "worn"),
        ({"size": 5, "fonts": "none"}, "0 font files"),
        ({"size": 5, "text": "none.txt"}, "cannot be read as UTF-8 text"),
    ],
)
def test_options_that_do_not_hold_are_refused(options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_documents(SourceConfig(format="documents", options=options), tmp_path)


def test_a_text_without_lines_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n<image>\n")
    with pytest.raises(DataError, match="no line with text"):
        open_documents(
            SourceConfig(format="documents", options={"size": 1, "text": "empty.txt"}), tmp_path
        )


def test_the_registry_opens_pages(tmp_path):
    source = open_source(
        "drawn", SourceConfig(format="documents", options={"size": 5, "seed": 2}), tmp_path
    )
    assert source[3] == pages(size=5, seed=2)[3]
    assert len(pickle.dumps(source)) < 3000
    with pytest.raises(IndexError, match="position 5 of 5 pages"):
        source[5]


def test_every_shipped_font_writes_plain_english():
    assert len(shipped_faces()) >= 8
    for face in shipped_faces():
        made = font(face, 20)
        missing = bytes(made.getmask("\uffff"))
        for character in CHARACTERS:
            assert bytes(made.getmask(character)) != missing, (face, character)


def test_a_font_without_letters_is_not_used(tmp_path):
    shutil.copy(shipped_faces()[1], tmp_path / "good.ttf")
    symbols = Path(shipped_faces()[1]).with_name("STIXSizOneSymReg.ttf")
    shutil.copy(symbols, tmp_path / "symbols.ttf")
    assert [Path(face).name for face in faces_in(str(tmp_path))] == ["good.ttf"]
    (tmp_path / "good.ttf").unlink()
    faces_in.cache_clear()
    with pytest.raises(DataError, match="1 font files"):
        faces_in(str(tmp_path))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_records_of_every_kind_ask_and_transcribe(kind):
    asking, writing = (
        pages(kinds=kind, transcriptions=0, size=30),
        pages(kinds=kind, transcriptions=1, size=30),
    )
    for position in range(30):
        page = writing[position].images[0].page
        assert writing[position].turns[1].text == "\n".join(page.rows)
        answers = {answer for _, answer in page.fields} | set(page.rows)
        assert all(turn.text in answers for turn in asking[position].turns[1::2])


def test_colours_stay_in_range_and_some_pages_are_dark():
    wears = [
        some_degradation(numpy_generator(1, number), 20, worn=bool(number % 2))
        for number in range(400)
    ]
    assert all(
        0 <= value <= 255
        for degradation in wears
        for value in (*degradation.paper, *degradation.ink)
    )
    dark = sum(sum(degradation.paper) < sum(degradation.ink) for degradation in wears)
    assert 15 <= dark <= 75

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.data.processing.images import load_image
from sailvit.data.rows.conversations import conversation_record
from sailvit.dataprep.llava_rows import encoded, llava_row, png

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
TURNS = (
    Turn("system", "Be brief."),
    Turn("user", "<image>\nWhat?"),
    Turn("assistant", "Ä boat"),
    Turn("user", "Why?"),
)


class Drawn:
    size = (5, 4)

    def pixels(self) -> np.ndarray:
        return PIXELS


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format=kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
def test_usual_files_are_passed_on_byte_by_byte(kind, tmp_path):
    data = saved(kind)
    (tmp_path / "any.name").write_bytes(data)
    assert encoded(data) == (data, kind)
    assert encoded(tmp_path / "any.name") == (data, kind)


@pytest.mark.parametrize("image", [PIXELS, Drawn(), saved("bmp"), saved("tiff")])
def test_all_others_become_png_without_loss(image):
    data, kind = encoded(image)
    assert kind == "png"
    assert np.array_equal(load_image(data), PIXELS)
    assert data == png(PIXELS)


@pytest.mark.parametrize("name", ["gone.png", "folder", "page.html"])
def test_files_that_are_no_images_are_named(name, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(DataError, match=name):
        encoded(tmp_path / name)


@pytest.mark.parametrize("names", [[], ["a.png"], ["a.png", "b/c.png"]])
def test_rows_read_back_as_they_were(names):
    marks = "<image>\n" * len(names)
    turns = (Turn("user", f"{marks}What?"), Turn("assistant", "Ä boat"))
    record = Record("7", turns, (PIXELS,) * len(names), "qa")
    row = llava_row(record, names)
    again = conversation_record(row, record.images, name=row["id"], kind="chat")
    assert (again.id, again.turns, again.kind) == ("7", turns, "qa")
    assert ("image" in row, "images" in row) == (len(names) == 1, len(names) == 2)


def test_speakers_are_named_as_llava_names_them():
    row = llava_row(Record("7", TURNS, (PIXELS,)), ["a.png"])
    assert [turn["from"] for turn in row["conversations"]] == ["system", "human", "gpt", "human"]

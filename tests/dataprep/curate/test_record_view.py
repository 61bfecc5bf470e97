"""What is found out about a record."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted import jpeg, noise, record

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.dataprep.records.hashes import content_hash, picture_hash
from sailvit.dataprep.records.record_view import RecordView


class Drawing:
    """A drawing that counts how often it is made."""

    size = (40, 30)

    def __init__(self) -> None:
        self.made = 0

    def pixels(self) -> np.ndarray:
        self.made += 1
        return noise(1)


TALK = Record(
    "r",
    (
        Turn("system", "Be brief."),
        Turn("user", "<image>\nWhat is it?"),
        Turn("assistant", " A cat. "),
        Turn("user", "And <image>?"),
        Turn("assistant", "A dog."),
    ),
    (jpeg(noise(1)), jpeg(noise(2))),
)


def test_texts():
    view = RecordView(0, TALK)
    assert view.answers == "A cat.\nA dog."
    assert view.text == "Be brief.\nWhat is it?\nA cat.\nAnd ?\nA dog."


def test_text_hashes_ignore_blanks_and_know_who_speaks():
    def hash_of(*turns: tuple[str, str]) -> tuple[int, int]:
        return RecordView(0, Record("r", tuple(Turn(role, text) for role, text in turns))).text_hash

    assert hash_of(("user", "a  b\n"), ("assistant", "c")) == hash_of(
        ("user", "a b"), ("assistant", " c")
    )
    assert hash_of(("user", "a"), ("assistant", "b c")) != hash_of(
        ("user", "a b"), ("assistant", "c")
    )
    assert hash_of(("user", "a")) != hash_of(("assistant", "a"))
    assert hash_of(("user", "\ud800")) != hash_of(("user", "\ud801"))


def test_sizes_are_those_of_the_upright_image():
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(0)).save(file, format="JPEG", exif=exif)
    view = RecordView(0, record(0, "x", [file.getvalue(), noise(0)]))
    assert [tuple(size) for size in view.sizes] == [(30, 40), (40, 30)]
    assert str(view.sizes[0]) == "30 x 40 px"
    assert view.pixels[0].shape == (40, 30, 3)


def test_a_file_and_its_bytes_are_the_same_image(tmp_path: Path):
    content = jpeg(noise(0))
    (tmp_path / "a.jpg").write_bytes(content)
    there, inside = (
        RecordView(0, record(0, "x", [tmp_path / "a.jpg"])),
        RecordView(0, record(0, "x", [content])),
    )
    assert there.image_hashes == inside.image_hashes
    assert there.record_hash == inside.record_hash
    assert there.picture_hashes == inside.picture_hashes == (picture_hash(there.pixels[0]),)


def test_a_missing_file_is_an_error_of_its_kind(tmp_path: Path):
    with pytest.raises(DataError, match=r"a.jpg cannot be read") as caught:
        _ = RecordView(0, record(0, "x", [tmp_path / "a.jpg"])).encoded
    assert caught.value.kind == "missing file"


def test_pictures_of_one_colour_are_compared_by_their_bytes():
    white = [np.full((20, side, 3), 255, np.uint8) for side in (20, 20, 30)]
    first, again, other = (
        RecordView(0, record(0, "x", [pixels])).picture_hashes for pixels in white
    )
    assert first == again != other
    assert first == (content_hash(str(white[0].shape).encode() + white[0].tobytes()),)


def test_nothing_is_computed_before_it_is_asked_for_nor_twice():
    drawing = Drawing()
    view = RecordView(0, record(0, "x", [drawing]))
    assert view.sizes == ((40, 30),)
    assert drawing.made == 0
    assert len(view.picture_hashes) == len(view.picture_hashes) == 1
    # Once for its pixels and once for its bytes.
    assert drawing.made == 2


def test_a_record_hash_takes_images_and_text():
    pictures = [jpeg(noise(seed)) for seed in (1, 2)]
    hashes = {
        RecordView(0, record(0, text, images)).record_hash
        for text in ("one", "two")
        for images in ([], pictures[:1], pictures, pictures[::-1])
    }
    assert len(hashes) == 8

"""Long texts in a PNG keep nobody from its pixels; bombs stay shut."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sailvit.core.errors import DataError
from sailvit.data.processing.images import image_size, load_image
from sailvit.data.processing.png_text import without_text
from sailvit.dataprep.llava_rows import portable

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def saved(info: PngInfo | None = None, **settings) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG", pnginfo=info, **settings)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def text(kind: bytes, size: int, keyword: bytes = b"prompt") -> bytes:
    packed = zlib.compress(b"x" * size)
    return chunk(
        kind,
        keyword
        + {
            b"tEXt": b"\0" + b"x" * size,
            b"zTXt": b"\0\0" + packed,
            b"iTXt": b"\0\1\0\0\0" + packed,
            b"iCCP": b"\0\0" + packed,
        }[kind],
    )


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
def test_long_texts_are_passed_over(kind, behind, tmp_path):
    size = 70_000_000 if kind == b"tEXt" else 2_000_000
    png = saved()
    at = png.index(b"IEND") - 4 if behind else png.index(b"IDAT") - 4
    file = png[:at] + text(kind, size) + png[at:]
    (tmp_path / "a.png").write_bytes(file)
    for image in (file, tmp_path / "a.png"):
        assert np.array_equal(load_image(image), PIXELS)
        assert image_size(image) == (6, 4)
    assert np.array_equal(load_image(portable(file)[0]), PIXELS)


@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_the_orientation_beside_a_long_text_holds(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngInfo()
    if kind == "xmp":
        info.add_itxt("XML:com.adobe.xmp", '<a tiff:Orientation="6"/>', zip=True)
    png = saved(info, **({"exif": exif} if kind == "exif" else {}))
    at = png.index(b"IDAT") - 4
    file = png[:at] + text(b"zTXt", 2_000_000) + png[at:]
    assert image_size(file) == (4, 6)
    assert np.array_equal(load_image(file), np.rot90(PIXELS, -1))


def test_a_bomb_where_an_orientation_would_be_goes_too():
    png = saved()
    at = png.index(b"IDAT") - 4
    bombs = [text(kind, 2_000_000, b"XML:com.adobe.xmp") for kind in (b"zTXt", b"iTXt")]
    assert without_text(png[:at] + b"".join(bombs) + png[at:]) == png
    assert np.array_equal(load_image(png[:at] + bombs[0] + png[at:]), PIXELS)


def test_nothing_else_is_taken_out():
    png = saved()
    assert without_text(png) == png
    assert without_text(png[:-20]) == png[:-20]
    assert without_text(b"GIF89a") == b"GIF89a"


def test_damage_beside_a_long_text_is_still_damage():
    png = saved()
    at = png.index(b"IDAT") - 4
    file = png[:at] + text(b"zTXt", 2_000_000) + png[at : at + 20]
    with pytest.raises(DataError, match=r"is damaged|cannot be opened"):
        load_image(file)


def test_pixel_bombs_are_refused_beside_long_texts():
    png = bytearray(saved())
    png[16:24] = struct.pack(">II", 50_000, 50_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    at = bytes(png).index(b"IDAT") - 4
    file = bytes(png[:at]) + text(b"zTXt", 2_000_000) + bytes(png[at:])
    with pytest.raises(DataError) as caught:
        load_image(file)
    assert caught.value.kind == "image size"

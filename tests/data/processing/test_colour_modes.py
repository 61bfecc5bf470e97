"""Ranges that are known are scaled, others refused: nothing comes out black or white by a misread range."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.data.processing.images import load_image


def saved(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(depth: int, colours: int, row: bytes, width: int, *chunks: bytes) -> bytes:
    """A PNG of one row, with every depth and kind of colours that there is."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colours, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *chunks,
            chunk(b"IDAT", zlib.compress(b"\0" + row)),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize(
    ("bits", "highest"), [(8, 255), (8, 200), (10, 1023), (12, 4095), (12, 3000), (16, 65535)]
)
@pytest.mark.parametrize(("kind", "numbers"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", "<i4")])
def test_deep_greys_are_scaled_by_the_least_depth_that_holds_them(bits, highest, kind, numbers):
    values = np.linspace(0, highest, 12).astype(numbers).reshape(3, 4)
    pixels = load_image(saved(Image.fromarray(values), kind))
    assert (pixels[..., 0] == values.astype(int) * 255 // (2**bits - 1)).all()
    assert pixels.max() == highest * 255 // (2**bits - 1) > 180


def test_black_stays_black():
    assert not load_image(saved(Image.fromarray(np.zeros((3, 4), np.uint16)), "PNG")).any()


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 70_000]], np.int32),
        np.array([[-1024, 3000]], np.int32),
        np.array([[2**31 - 1, 2**30]], np.int32),
    ],
)
def test_whole_numbers_of_no_known_range_are_refused(values):
    with pytest.raises(DataError, match=rf"grey values from {values.min()} to {values.max()}") as e:
        load_image(saved(Image.fromarray(values), "TIFF"))
    assert e.value.kind == "image"


@pytest.mark.parametrize("highest", [1.0, 255.0, 4000.0])
def test_floats_are_refused(highest):
    values = np.linspace(0, highest, 12, dtype=np.float32).reshape(3, 4)
    with pytest.raises(DataError, match="has float pixels, whose range is unknown: save it with 8"):
        load_image(saved(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize(
    ("colours", "channels"), [(2, 3), (6, 4), (4, 2)], ids=["RGB", "RGBA", "grey with alpha"]
)
def test_low_colours_of_16_bits_are_refused_where_only_black_would_be_left(colours, channels):
    def row(highest: int) -> bytes:
        values = np.linspace(0, highest, 4 * channels).astype(">u2").reshape(4, channels)
        if channels in (2, 4):
            values[:, -1] = 65535
        return values.tobytes()

    with pytest.raises(DataError, match="16-bit colours below 4096 of 65535 alone"):
        load_image(png(16, colours, row(4095), 4))
    assert load_image(png(16, colours, row(65535), 4)).max() > 150


@pytest.mark.parametrize(
    ("depth", "row", "clear", "seen"),
    [
        (1, bytes([0b01000000]), 1, [0, 255, 0]),
        (1, bytes([0b01000000]), 0, [255, 255, 255]),
        (2, bytes([0b00011000]), 1, [0, 255, 170]),
        (4, bytes([0x04, 0x80]), 4, [0, 255, 136]),
        (8, bytes([7, 9, 200]), 9, [7, 255, 200]),
        (16, struct.pack(">3H", 25700, 257, 65535), 257, [100, 255, 255]),
    ],
)
def test_a_transparent_grey_shows_white_at_every_depth(depth, row, clear, seen):
    file = png(depth, 0, row, 3, chunk(b"tRNS", struct.pack(">H", clear)))
    assert load_image(file)[0, :, 0].tolist() == seen


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_shows_white_at_every_depth(depth):
    numbers, scale = (">u1", 1) if depth == 8 else (">u2", 256)
    values = np.array([10, 20, 30, 40, 50, 60], numbers) * scale
    clear = struct.pack(">3H", *(values[:3].tolist()))
    file = png(depth, 2, values.astype(numbers).tobytes(), 2, chunk(b"tRNS", clear))
    assert load_image(file)[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_a_deep_tiff_whose_zero_is_white_is_inverted_as_shallow_ones_are():
    grey = np.array([[0, 128, 255]], np.uint8)
    deep = grey.astype(np.uint16) * 257
    for values in (grey, deep):
        file = saved(Image.fromarray(values), "TIFF", tiffinfo={262: 1})
        assert load_image(_white_is_zero(file))[0, :, 0].tolist() == [255, 127, 0]


def _white_is_zero(tiff: bytes) -> bytes:
    """The file with its photometric interpretation, tag 262, changed from 1 to 0."""
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert tiff.count(entry) == 1
    return tiff.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0))

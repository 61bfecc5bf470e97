"""One picture in every mode, format and orientation, seen alike by training and all other paths."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stored_images import HEIGHT, WIDTH, Stored, stored_images

from sailvit.core.errors import DataError
from sailvit.core.layout import VisualLayout
from sailvit.core.records import Record, Turn
from sailvit.data.processing.decoding import decode, reads_alike
from sailvit.data.processing.images import MAX_PIXELS, image_size, load_image
from sailvit.data.processing.processor import Tiler
from sailvit.dataprep.llava_rows import encoded, portable
from sailvit.dataprep.prepare.entries import Entries
from sailvit.dataprep.prepare.members import sample_files
from sailvit.dataprep.records.record_view import RecordView

TURNS = (Turn("user", "<image>\nWhat?"), Turn("assistant", "A thing"))


@pytest.fixture(scope="module")
def stored() -> list[Stored]:
    return stored_images()


def test_every_mode_format_and_orientation_is_seen_as_it_is(stored: list[Stored]):
    wrong = []
    for image in stored:
        found = load_image(image.data)
        if found.shape != image.seen.shape:
            wrong.append(f"{image.name}: {found.shape}")
        elif (off := abs(found.astype(int) - image.seen).max()) > image.off:
            wrong.append(f"{image.name}: off by {off}")
        if image_size(image.data) != (WIDTH, HEIGHT):
            wrong.append(f"{image.name}: size {image_size(image.data)}")
    assert not wrong
    assert len(stored) > 300


def test_all_paths_see_the_pixels_of_training(stored: list[Stored], tmp_path: Path):
    """`prepare` and its index, curation and statistics, endpoints, and tiles."""
    layout, wrong = VisualLayout(8, 1, 0, ""), []
    for number, image in enumerate(stored):
        path = tmp_path / f"{number}"
        expected = load_image(image.data)
        path.write_bytes(image.data)
        record = Record("1", TURNS, (path,), "caption")
        written = sample_files(record)[0].content
        facts = Entries(None).facts(record)
        sent = Image.open(io.BytesIO(portable(path)[0]))
        seen = {
            "file": load_image(path),
            "prepare": load_image(written),
            "rendered": load_image(encoded(image.data)[0]),
            "curation": RecordView(0, record).pixels[0],
            "endpoint": np.asarray(sent.convert("RGB")),
        }
        wrong += [
            f"{image.name}: {name}"
            for name, pixels in seen.items()
            if not np.array_equal(pixels, expected)
        ]
        if (facts["width"], facts["height"]) != (WIDTH, HEIGHT):
            wrong.append(f"{image.name}: index {facts}")
        if image_size(written) != (WIDTH, HEIGHT):
            wrong.append(f"{image.name}: prepared size {image_size(written)}")
        if not Tiler(layout)(path).equal(Tiler(layout)(expected)):
            wrong.append(f"{image.name}: tiles")
    assert not wrong


def saved(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def picture(width: int = 6, height: int = 4) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_tiff_is_turned_once_however_it_is_compressed(compression, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(picture(), "TIFF", exif=exif, compression=compression)
    turns = {1: 0, 3: 2, 6: -1, 8: 1}
    expected = np.rot90(np.asarray(picture()), turns[orientation])
    assert np.array_equal(load_image(file), expected)
    assert image_size(file) == (expected.shape[1], expected.shape[0])


def test_an_orientation_in_xmp_alone_turns_once():
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    for kind in ("TIFF", "JPEG", "WEBP"):
        file = saved(picture(24, 16), kind, **_with_xmp(kind, xmp))
        assert image_size(file) == (16, 24), kind
        assert load_image(file).shape == (24, 16, 3), kind


def _with_xmp(kind: str, xmp: bytes) -> dict:
    return {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}


@pytest.mark.parametrize("value", [0, 9, 255, "6", "left", -1])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_that_is_none_leaves_the_image_as_it_is(kind, value):
    exif = Image.Exif()
    exif[0x0112] = value
    try:
        file = saved(picture(24, 16), kind, exif=exif)
    except (TypeError, ValueError, struct.error) as error:
        pytest.skip(f"Pillow does not write it: {error}")
    assert load_image(file).shape == (16, 24, 3)
    assert image_size(file) == (24, 16)


def test_the_first_page_and_frame_is_the_picture():
    first, second = picture(8, 6), picture(9, 5)
    expected = np.asarray(first)
    for kind, settings in (
        ("TIFF", {}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
    ):
        file = saved(first, kind, save_all=True, append_images=[second.resize((8, 6))], **settings)
        assert np.array_equal(load_image(file), expected), kind
        assert image_size(file) == (8, 6)


def test_a_colour_profile_is_passed_over_broken_or_whole():
    for profile in (b"no profile", bytes(3000)):
        for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
            plain = saved(picture(24, 16), kind)
            profiled = saved(picture(24, 16), kind, icc_profile=profile)
            assert np.array_equal(load_image(profiled), load_image(plain)), kind


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "settings", [{}, {"progressive": True}, {"keep_rgb": True}, {"restart_marker_rows": 1}]
)
def test_jpegs_have_the_pixels_of_pillow(mode, settings):
    image = picture(40, 24).convert(mode)
    file = saved(image, "JPEG", quality=90, **settings)
    expected = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    assert np.array_equal(load_image(file), expected)


def test_drawings_that_another_program_runs_are_refused():
    with pytest.raises(DataError, match="is EPS, a drawing that another program would have to run"):
        load_image(saved(picture(), "EPS"))


def test_files_read_alike_only_when_nothing_is_left_to_the_decoder():
    exif = Image.Exif()
    exif[0x0112] = 6
    alike = [saved(picture(), kind) for kind in ("PNG", "JPEG", "WEBP")]
    differing = [
        saved(picture(), "JPEG", exif=exif),
        saved(picture().convert("CMYK"), "JPEG"),
        saved(picture().convert("RGBA"), "PNG"),
        saved(picture().quantize(8), "PNG"),
        saved(Image.fromarray(np.full((3, 4), 32639, np.uint16)), "PNG"),
        saved(picture(), "TIFF"),
        saved(picture(), "PNG", save_all=True, append_images=[picture()]),
        saved(picture(), "GIF"),
    ]
    assert [reads_alike(file, MAX_PIXELS) for file in alike] == [True] * 3
    assert [reads_alike(file, MAX_PIXELS) for file in differing] == [False] * len(differing)


def test_a_header_that_contradicts_its_pixels_is_damage(monkeypatch):
    """Its size was measured by the header, so its tiles would not fit their placeholders."""
    file = saved(picture(32, 24), "JPEG")
    smaller = np.zeros((16, 16, 3), np.uint8)
    monkeypatch.setattr(
        "sailvit.data.processing.decoding.jpeg_decoder", lambda: lambda *a, **k: smaller
    )
    with pytest.raises(DataError, match=r"header says 24 by 32 pixels, decoded it has 16 x 16"):
        decode(file, MAX_PIXELS)

"""Pixels of every mode and orientation, damage, and the grid of tiles."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from sailvit.core.errors import DataError
from sailvit.core.layout import VisualLayout
from sailvit.data.processing import decoding
from sailvit.data.processing.images import (
    Doubled,
    image_size,
    load_image,
    tile_count,
    tile_grid,
    tile_grids,
    tile_image,
)

LAYOUT = VisualLayout(8, 1, 0, "<|image_pad|>", max_tiles=6)


def encoded(image: Image.Image, kind: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def gradient(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) % 256], -1
    ).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("L", (4, 3), 100), "PNG", (100, 100, 100)),
        (Image.new("1", (4, 3), 1), "PNG", (255, 255, 255)),
        (Image.new("LA", (4, 3), (0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (4, 3), (200, 0, 0, 255)), "PNG", (200, 0, 0)),
        (Image.new("RGBA", (4, 3), (0, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGB", (4, 3), (10, 200, 30)).quantize(2), "PNG", (10, 200, 30)),
        (Image.new("CMYK", (4, 3), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (Image.fromarray(np.full((3, 4), 65535, np.uint16)), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((3, 4), 25700, np.uint16)), "PNG", (100, 100, 100)),
        (Image.fromarray(np.full((3, 4), 25700, np.int32)), "TIFF", (100, 100, 100)),
    ],
)
def test_every_mode_becomes_rgb(image, kind, expected):
    pixels = load_image(encoded(image, kind))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 4, 3)
    assert pixels[1, 1].tolist() == list(expected)


def test_a_transparent_palette_entry_shows_white():
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 0, 0, 255])
    assert load_image(encoded(image, transparency=1))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    upright = gradient(6, 4)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(Image.fromarray(np.ascontiguousarray(turned)), exif=exif)
    assert image_size(stored) == (6, 4)
    assert (load_image(stored) == upright).all()


def test_files_bytes_and_arrays_give_the_same(tmp_path):
    pixels = gradient(9, 5)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(pixels)))
    for image in (path, path.read_bytes(), pixels):
        assert (load_image(image) == pixels).all()
        assert image_size(image) == (9, 5)


def test_damage_is_named_and_never_half_a_picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = encoded(Image.fromarray(noise), kind)
        with pytest.raises(DataError, match=r"is damaged|cannot be opened"):
            load_image(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be opened"):
        load_image(b"not an image")
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="cannot be opened"):
        load_image(tmp_path)


def test_more_pixels_than_the_budget_are_not_decoded():
    bomb = encoded(Image.new("1", (3000, 2000)))
    with pytest.raises(DataError, match="3000 x 2000 pixels"):
        load_image(bomb, max_pixels=5_000_000)
    assert load_image(bomb, max_pixels=6_000_000).shape == (2000, 3000, 3)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(DataError, match="expected uint8"):
        load_image(array)


@pytest.mark.parametrize(
    ("width", "height", "most", "grid"),
    [
        (448, 448, 12, (1, 1)),
        (640, 480, 12, (4, 3)),
        (1280, 960, 12, (4, 3)),
        (800, 600, 6, (3, 2)),
        (448, 896, 12, (1, 2)),
        (1000, 2000, 12, (2, 4)),
        (900, 900, 12, (2, 2)),
        (2000, 2000, 12, (3, 3)),
        (500, 500, 12, (1, 1)),
        (1920, 1080, 12, (4, 2)),
        (1300, 650, 12, (4, 2)),
        (1200, 600, 12, (2, 1)),
        (1920, 1080, 6, (2, 1)),
        (100, 3000, 12, (1, 12)),
        (3000, 100, 6, (6, 1)),
        (1000, 800, 6, (3, 2)),
        (500, 400, 6, (1, 1)),
        (1234, 567, 1, (1, 1)),
    ],
)
def test_grid_has_the_closest_aspect_ratio(width, height, most, grid):
    assert tile_grid(width, height, VisualLayout(448, 256, 0, "", max_tiles=most)) == grid


def test_tiles_are_cut_row_by_row_with_the_thumbnail_last():
    image = np.zeros((16, 24, 3), np.uint8)
    for cell in range(6):
        row, column = divmod(cell, 3)
        image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 40 * cell
    tiles = tile_image(image, LAYOUT)
    assert tiles.shape == (7, 3, 8, 8)
    assert tiles.dtype == torch.uint8
    assert [int(tile.float().mean()) for tile in tiles[:6]] == [0, 40, 80, 120, 160, 200]
    assert 95 < float(tiles[6].float().mean()) < 105
    assert float(tiles[6].float().std()) > 40
    assert tile_count(image, LAYOUT) == 7


@pytest.mark.parametrize(("width", "height"), [(8, 8), (30, 20)])
def test_tiles_are_made_channels_last_where_there_is_room_for_them(width, height):
    room = torch.zeros(10_000, dtype=torch.uint8)
    image = gradient(width, height)
    tiles, there = tile_image(image, LAYOUT), tile_image(image, LAYOUT, room)
    assert there.equal(tiles)
    assert there.data_ptr() == room.data_ptr()
    assert tiles.is_contiguous(memory_format=torch.channels_last)
    assert there.is_contiguous(memory_format=torch.channels_last)
    assert not room[tiles.nbytes :].any()


@pytest.mark.parametrize(("width", "height"), [(8, 8), (30, 10), (5, 40), (17, 16)])
@pytest.mark.parametrize("thumbnail", [True, False])
def test_tile_count_foretells_the_tiles(width, height, thumbnail):
    layout = VisualLayout(8, 1, 0, "", max_tiles=5, thumbnail=thumbnail)
    image = gradient(width, height)
    assert len(tile_image(image, layout)) == tile_count(image, layout)


def test_fixed_resolution_opens_no_file_to_count_and_keeps_pixels_of_the_right_size():
    layout = VisualLayout(8, 1, 0, "")
    assert tile_count(Path("/nowhere.png"), layout) == 1
    image = gradient(8, 8)
    assert (tile_image(image, layout)[0].permute(1, 2, 0).numpy() == image).all()


def test_resizing_is_the_antialiased_bicubic_of_pillow_within_rounding():
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    ours = tile_image(image, VisualLayout(16, 1, 0, ""))[0].permute(1, 2, 0).numpy().astype(int)
    pillow = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC)).astype(
        int
    )
    assert abs(ours - pillow).max() <= 2


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request, monkeypatch):
    """Runs a test with and without the fast decoder."""
    if request.param == "Pillow":
        monkeypatch.setattr(decoding, "jpeg_decoder", lambda: None)
    elif decoding.jpeg_decoder() is None:
        pytest.skip("simplejpeg is not installed")
    return request.param


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 1, 2, "4:1:1"])
@pytest.mark.parametrize("settings", [{"quality": 30}, {"quality": 95, "progressive": True}])
def test_the_fast_decoder_gives_the_bits_of_pillow(decoder, mode, subsampling, settings):
    for width, height in ((1, 1), (7, 5), (33, 17), (64, 48)):
        file = encoded(
            noise(width, height).convert(mode), "JPEG", subsampling=subsampling, **settings
        )
        expected = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        assert (load_image(file) == expected).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_once(decoder, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    path.write_bytes(encoded(noise(24, 16), "JPEG", exif=exif))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert (load_image(path) == upright).all()
    assert image_size(path) == upright.shape[1::-1]


@pytest.mark.parametrize("left", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused(decoder, left, progressive):
    whole = encoded(noise(64, 64), "JPEG", progressive=progressive)
    with pytest.raises(DataError, match=r"is damaged|cannot be opened") as caught:
        load_image(whole[: int(len(whole) * left)])
    assert caught.value.kind == "image"


def test_what_libjpeg_only_warns_of_is_read_by_both_decoders(decoder):
    whole = encoded(noise(64, 64), "JPEG")
    scan = whole.index(b"\xff\xda")
    strange = whole[:scan] + b"\x00\x00" + whole[scan:]
    assert load_image(strange).shape == (64, 64, 3)


def test_the_first_of_several_pictures_is_read(decoder):
    first, second = noise(8, 6).quantize(16), noise(9, 6).quantize(16)
    gif = encoded(first, "GIF", save_all=True, append_images=[second])
    assert (load_image(gif) == np.asarray(first.convert("RGB"))).all()
    mpo = encoded(noise(16, 8), "MPO", save_all=True, append_images=[noise(17, 8)])
    assert (load_image(mpo) == load_image(encoded(noise(16, 8), "JPEG"))).all()


def test_a_png_is_turned_by_exif_behind_its_pixels_and_read_without_decoding(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, plain = encoded(Image.new("RGB", (6, 4)), exif=exif), encoded(Image.new("RGB", (6, 4)))
    chunk = turned.index(b"eXIf") - 4
    length = int.from_bytes(turned[chunk : chunk + 4], "big") + 12
    end = turned.index(b"IEND") - 4
    behind = (
        turned[:chunk]
        + turned[chunk + length : end]
        + turned[chunk : chunk + length]
        + turned[end:]
    )
    assert image_size(behind) == (4, 6)
    assert load_image(behind).shape == (6, 4, 3)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded"))
    assert image_size(plain) == (6, 4)


def test_broken_exif_leaves_an_image_as_it_is(decoder):
    file = encoded(noise(8, 8), "JPEG", exif=b"Exif\0\0" + b"MM\x00\x2a\xff\xff\xff\xff")
    assert load_image(file).shape == (8, 8, 3)


def test_an_image_without_pixels_is_refused():
    png = bytearray(encoded(Image.new("RGB", (3, 2))))
    png[16:20] = bytes(4)
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match="cannot be opened"):
        load_image(bytes(png))
    with pytest.raises(DataError, match="expected uint8"):
        load_image(np.zeros((0, 4, 3), np.uint8))


def test_a_drawing_is_drawn_when_it_is_loaded():
    class Drawing:
        size = (5, 4)

        def pixels(self):
            return gradient(5, 4)

    assert image_size(Drawing()) == (5, 4)
    assert (load_image(Drawing()) == gradient(5, 4)).all()


@pytest.mark.parametrize(
    ("width", "height", "most", "grids"),
    [
        (448, 448, 10, [(2, 2)]),
        (1000, 1000, 10, [(3, 3), (2, 2)]),
        (1920, 1080, 10, [(4, 2), (3, 2)]),
        (1920, 1080, 24, [(5, 3), (6, 3)]),
        (300, 1400, 12, [(1, 5), (1, 4)]),
        (448, 448, 1, [(1, 1)]),
    ],
)
def test_a_second_grid_is_no_part_of_the_first(width, height, most, grids):
    layout = VisualLayout(448, 256, 0, "", max_tiles=most, second_grid=True)
    assert tile_grids(width, height, layout) == grids


def test_tiles_of_both_grids_come_before_the_thumbnail():
    layout = replace(LAYOUT, second_grid=True)
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, 12:] = 200
    assert tile_grids(24, 16, layout) == [(3, 2), (2, 2)]
    tiles = tile_image(image, layout)
    assert len(tiles) == tile_count(image, layout) == 6 + 4 + 1 <= layout.most_tiles
    assert [int(tile.float().mean()) for tile in tiles[6:10]] == [1, 199, 1, 199]
    assert tiles[:6].equal(tile_image(image, LAYOUT)[:6])
    assert tiles[-1].equal(tile_image(image, LAYOUT)[-1])


def test_an_image_of_twice_the_size_is_pillows():
    image = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    made = Doubled(image)
    assert made.size == (26, 18)
    expected = np.asarray(Image.fromarray(image).resize((26, 18), Image.Resampling.BILINEAR))
    assert np.abs(made.pixels().astype(int) - expected).max() <= 1

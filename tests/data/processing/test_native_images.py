"""Native resolution in the data: the grid of an image, its tiles, and what it costs."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_tokenizers import CHATML, byte_tokenizer, layout_for

from sailvit.core.layout import GridLimits, VisualLayout
from sailvit.core.records import Record, Turn
from sailvit.core.tiles import joined
from sailvit.data.lengths.fingerprints import layout_fingerprint
from sailvit.data.processing.collate import collate
from sailvit.data.processing.images import tile_count, tile_grid, tile_image
from sailvit.data.processing.processor import Processor, Tiler

TILE = 28
LIMITS = GridLimits(least=4, most=4096, square=16)
LAYOUT = VisualLayout(TILE, 1, 0, "<|image_pad|>", native=LIMITS)


def grid(width: int, height: int, least: int = 4, most: int = 4096) -> tuple[int, int]:
    return tile_grid(width, height, replace(LAYOUT, native=GridLimits(least, most, 16)))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((448, 448), (16, 16)),
        ((640, 480), (23, 17)),
        ((1792, 1792), (64, 64)),  # exactly the limit
        ((3584, 3584), (64, 64)),  # twice as large per side
        ((4000, 2000), (90, 45)),  # 4050 tiles of 2:1
        ((1, 1), (2, 2)),
        ((2, 1), (3, 2)),
        ((5000, 1), (179, 1)),
        ((1, 5000), (1, 179)),
        ((3_000_000, 20), (4096, 1)),
        ((20, 3_000_000), (1, 4096)),
        ((13, 13), (2, 2)),
        # Sizes that broke other programs of this rule, as their users reported them.
        ((690, 15420), (13, 302)),
        ((332, 27), (12, 1)),
        ((26, 28), (2, 3)),
        ((2048, 9), (73, 1)),
    ],
)
def test_the_grid_keeps_the_aspect_ratio_within_its_limits(size, expected):
    assert grid(*size) == expected
    columns, rows = expected
    assert 1 <= columns * rows <= 4096


def test_no_size_leaves_the_limits_and_aspect_ratios_are_kept():
    generator = np.random.default_rng(0)
    for width, height in np.exp(generator.uniform(0, np.log(8000), (500, 2))).astype(int):
        columns, rows = grid(int(width), int(height), 4, 256)
        assert 4 <= columns * rows <= 256 or min(columns, rows) == 1
        if min(columns, rows) >= 8:
            assert abs(np.log(columns / rows) - np.log(width / height)) < 0.2


def test_a_narrow_image_over_a_small_limit_keeps_both_sides():
    """Rounded down, its short side would be 0 tiles."""
    assert grid(31, 639, least=4, most=20) == (1, 20)
    assert grid(639, 31, least=4, most=20) == (20, 1)


def test_the_upper_limit_wins_where_both_cannot_be_met():
    assert grid(1, 1, least=3, most=3) == (1, 1)


def test_tiles_make_up_the_resized_image():
    pixels = np.random.default_rng(1).integers(0, 256, (60, 110, 3), dtype=np.uint8)
    tiles = tile_image(pixels, LAYOUT)
    assert tile_grid(110, 60, LAYOUT) == (4, 2)
    assert tiles.shape == (8, 3, TILE, TILE)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None],
        size=(2 * TILE, 4 * TILE),
        mode="bicubic",
        antialias=True,
    )
    assert torch.equal(joined(tiles, (2, 4)), expected)


def test_an_image_of_whole_tiles_is_not_resampled():
    pixels = np.random.default_rng(1).integers(0, 256, (2 * TILE, 3 * TILE, 3), dtype=np.uint8)
    whole = joined(tile_image(pixels, LAYOUT), (2, 3))[0].permute(1, 2, 0)
    assert np.array_equal(whole.numpy(), pixels)


def encoded(image: Image.Image, kind: str = "PNG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    return encoded(Image.new("RGB", (120, 30)), "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (turned(), (1, 4)),
        (encoded(Image.new("L", (120, 30))), (4, 1)),
        (encoded(Image.new("RGBA", (120, 30))), (4, 1)),
        (encoded(Image.new("RGB", (1, 1))), (2, 2)),
        (encoded(Image.new("RGB", (5000, 1))), (179, 1)),
        (encoded(Image.new("L", (9000, 4000)), "JPEG"), (96, 42)),
    ],
    ids=["turned", "grey", "transparent", "dot", "strip", "large"],
)
def test_what_is_planned_is_what_is_made(image: bytes, expected: tuple[int, int]):
    columns, rows = expected
    assert tile_count(image, LAYOUT) == columns * rows
    assert Tiler(LAYOUT)(image).shape == (columns * rows, 3, TILE, TILE)


def processor(longest: int = 400) -> Processor:
    tokenizer = byte_tokenizer(CHATML)
    layout = layout_for(tokenizer, tile_size=8, tokens_per_tile=1, max_tiles=1)
    return Processor(tokenizer, replace(layout, native=GridLimits(2, 64, 4)), longest)


def record(name: str, *sizes: tuple[int, int]) -> Record:
    images = tuple(
        np.random.default_rng(n).integers(0, 256, (height, width, 3), dtype=np.uint8)
        for n, (width, height) in enumerate(sizes)
    )
    asked = Turn("user", "<image>" * len(sizes) + "what?")
    return Record(name, (asked, Turn("assistant", "it")), images)


def test_a_record_costs_its_images_true_tiles():
    made = processor()
    text, two = made.cost(record("text")), made.cost(record("two", (40, 16), (8, 33)))
    assert text[1] == 0
    assert two[1] == 10 + 4
    sample = made("src", record("two", (40, 16), (8, 33)))
    assert two[0] == len(sample.tokens)
    assert sample.grids == ((2, 5), (4, 1))
    assert sample.image_of_tile.tolist() == [0] * 10 + [1] * 4
    placeholders = int((sample.tokens == made.layout.placeholder_id).sum())
    assert placeholders == len(sample.tiles) == 14


def test_a_video_of_frames_is_so_many_images_and_cut_between_them():
    made = processor()
    frames = record("video", *[(40, 16)] * 8)
    draft = made.draft("src", frames, most_tiles=None)
    assert len(made.finish(draft).grids) == 8
    question = Turn("user", "first"), Turn("assistant", "answer")
    shown = record("video", *[(40, 16)] * 8)
    cut = made.draft("src", replace(shown, turns=(*question, *shown.turns)), most_tiles=25)
    assert made.finish(cut).grids == ((2, 5),) * 2


def test_a_batch_has_the_grids_of_its_images_in_order():
    made = processor()
    one, two = made("src", record("one", (40, 16))), made("src", record("two", (8, 33), (16, 16)))
    text = made("src", record("text"))
    batch = collate([[one, text], [], [two]])
    assert batch.grids == ((2, 5), (4, 1), (2, 2))
    assert batch.pictures == (10, 4, 4)
    assert len(batch.tiles) == 18
    assert batch.image_of_tile.tolist() == [0] * 10 + [1] * 4 + [2] * 4
    assert collate([[text]]).grids == ()


def test_the_mode_changes_what_counts_are_kept_under_and_nothing_else_does():
    fixed = replace(LAYOUT, native=None)
    marks = {layout_fingerprint(LAYOUT), layout_fingerprint(fixed)}
    marks.add(layout_fingerprint(replace(LAYOUT, native=replace(LIMITS, most=9))))
    assert len(marks) == 3
    # As it was before native resolution existed.
    assert layout_fingerprint(VisualLayout(8, 1, 0, "<|image_pad|>")) == "77b4899d98ca2bb8"


def test_the_square_of_a_layout_is_one_tile_of_the_towers_size():
    squared = LAYOUT.squared
    assert (squared.tile_size, squared.tokens_per_tile, squared.most_tiles) == (448, 256, 1)
    assert tile_grid(100, 20, squared) == (1, 1)

import numpy as np
import pytest

from sailvit.core.seeding import numpy_generator
from sailvit.synthetic.world.glyphs import glyph
from sailvit.synthetic.world.rendering import (
    MAP_CLASSES,
    SIDE,
    draw,
    draw_labelled,
    outline,
    size_of,
)
from sailvit.synthetic.world.scenes import Chart, Crowd, Objects, Strip, Sum, Thing, Writing
from sailvit.synthetic.world.vocabulary import COLOURS, DIGITS, LETTERS, SHAPES


def picture(scene, seed=0):
    return draw(scene, numpy_generator(seed, "picture")).astype(int)


def inked(image):
    """Pixels that clearly differ from the background, which fills most of the top row."""
    return abs(image - np.median(image, axis=(0, 1))).max(axis=-1) > 60


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_thing_stays_inside_its_cell(size, shape, seed):
    mask = inked(picture(Objects((Thing(2, size, "blue", shape),)), seed))
    assert mask[32:, :32].any()
    mask[32:, :32] = False
    assert not mask.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_large_things_cover_more_than_twice_the_small_ones(shape):
    areas = [
        inked(picture(Objects((Thing(0, size, "red", shape),)))).sum()
        for size in ("small", "large")
    ]
    assert areas[1] > 2.5 * areas[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_full_crowd_never_overlaps(seed):
    things = tuple(Thing(cell, "small", "black", "square") for cell in range(16))
    together = inked(picture(Crowd(things, ("black", "square")), seed)).sum()
    assert together == 16 * inked(picture(Crowd(things[:1], ("black", "square")), seed)).sum()


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stay_nearest_to_themselves_under_every_tint(colour):
    bars = tuple((name, 5) for name in COLOURS if name != colour)[:3]
    reference = {}
    for seed in range(20):
        image = picture(Chart(((colour, 5), *bars)), seed)
        for (name, _), x in zip(((colour, 5), *bars), (8, 24, 40, 56), strict=True):
            reference.setdefault(name, []).append(image[40, x])
    centres = {name: np.mean(pixels, axis=0) for name, pixels in reference.items()}
    for pixel in reference[colour]:
        assert min(centres, key=lambda name: np.linalg.norm(centres[name] - pixel)) == colour


def test_bars_rise_by_one_level_of_twelve_pixels():
    image = picture(Chart((("red", 1), ("blue", 3), ("green", 5), ("black", 4))))
    assert [int((image[:62, x].std(axis=-1) > 20).sum()) for x in (8, 24, 40)] == [12, 36, 60]


def test_glyphs_span_two_patches_and_all_differ():
    marks = [glyph(character, 4) for character in DIGITS + LETTERS]
    assert all(mark.shape == (28, 20) for mark in marks)
    distances = [abs(a - b).sum() / 16 for i, a in enumerate(marks) for b in marks[:i]]
    assert min(distances) >= 1, "two glyphs look the same"


@pytest.mark.parametrize("glyphs", ["47", "472", "hk"])
def test_a_writing_shows_each_glyph_in_its_cell(glyphs):
    mask = inked(picture(Writing("black", tuple(glyphs))))
    for cell in range(4):
        row, column = divmod(cell, 2)
        ink = mask[32 * row : 32 * row + 32, 32 * column : 32 * column + 32].sum()
        assert ink == (16 * glyph(glyphs[cell], 1).sum() if cell < len(glyphs) else 0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [("7",), ("472506",), ("4", "7", "2"), ("472", "018")])
def test_a_strip_is_as_large_as_its_digits_each_in_a_cell_of_one_visual_token(rows, seed):
    scene = Strip("black", len(rows[0]), tuple("".join(rows)))
    mask = inked(picture(scene, seed))
    assert size_of(scene) == (16 * len(rows[0]), 16 * len(rows)) == mask.shape[::-1]
    for row, digits in enumerate(rows):
        for column, digit in enumerate(digits):
            ink = mask[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].sum()
            assert ink == 4 * glyph(digit, 1).sum()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [12, 14, 26])
def test_outlines_are_shares_of_pixels_and_symmetric(shape, size):
    mask = outline(shape, size)
    assert mask.shape == (size, size)
    assert mask.dtype == np.float32
    assert 0 <= mask.min() < mask.max() == 1
    assert np.array_equal(mask, mask[:, ::-1])


def test_jitter_moves_and_tints_only():
    scene = Objects((Thing(0, "small", "red", "circle"),))
    first, second = picture(scene, 1), picture(scene, 2)
    assert first.shape == (SIDE, SIDE, 3)
    assert not np.array_equal(first, second)
    assert abs(inked(first).sum() - inked(second).sum()) < 20


def test_a_sum_has_no_picture():
    with pytest.raises(TypeError, match="a Sum cannot be drawn"):
        picture(Sum(1, "plus", 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_label_map_covers_what_is_inked_and_nothing_else(shape):
    scene = Objects((Thing(1, "large", "blue", shape),))
    image, labels = draw_labelled(scene, numpy_generator(0, "picture"))
    assert np.array_equal(image, draw(scene, numpy_generator(0, "picture")))
    assert set(np.unique(labels)) == {0, MAP_CLASSES.index(shape)}
    # Edges are soft: they differ by a row of pixels at most.
    assert (inked(image.astype(int)) != (labels > 0)).sum() <= 4 * 26 // 4


def test_bars_and_writings_have_labels_of_their_own():
    found = [
        set(np.unique(draw_labelled(scene, numpy_generator(0, "picture"))[1]).tolist())
        for scene in (Chart((("red", 3), ("blue", 1))), Writing("red", ("4", "a")))
    ]
    assert found == [{0, MAP_CLASSES.index("bar")}, {0, MAP_CLASSES.index("writing")}]

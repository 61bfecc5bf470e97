from collections import Counter

import numpy as np
import pytest

from sailvit.core.seeding import numpy_generator
from sailvit.synthetic.world import scenes
from sailvit.synthetic.world.source import WorldSource
from sailvit.synthetic.world.tasks import IMAGE_TASKS
from sailvit.synthetic.world.vocabulary import COLOURS, SHAPES, vocabulary

DRAWS = {
    "objects": scenes.draw_objects,
    "crowd": scenes.draw_crowd,
    "writing": scenes.draw_writing,
    "chart": scenes.draw_chart,
    "strip": scenes.draw_strip,
}


def drawn(draw, count=500):
    return [draw(numpy_generator(0, draw.__name__, position)) for position in range(count)]


def test_objects_stand_in_different_cells_and_have_different_names():
    for scene in drawn(scenes.draw_objects):
        cells = [thing.cell for thing in scene.things]
        assert cells == sorted(set(cells))
        assert len({thing.name for thing in scene.things}) == len(cells) in (2, 3)


def test_crowds_hold_two_groups_with_every_count_equally_likely():
    counts = Counter()
    for scene in drawn(scenes.draw_crowd, 1000):
        per_group = [scene.count(group) for group in scene.groups]
        assert sum(per_group) == len(scene.things) == len({thing.cell for thing in scene.things})
        counts.update(per_group)
    assert set(counts) == {1, 2, 3, 4}
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_bars_differ_in_colour_and_height():
    for scene in drawn(scenes.draw_chart):
        colours, heights = zip(*scene.bars, strict=True)
        assert len(set(colours)) == len(set(heights)) == len(scene.bars) in (3, 4)
        assert set(heights) <= {1, 2, 3, 4, 5}


def test_writings_are_all_digits_or_all_letters():
    texts = [scene.glyphs for scene in drawn(scenes.draw_writing)]
    assert {len(text) for text in texts} == {2, 3}
    assert all(len({glyph.isdigit() for glyph in text}) == 1 for text in texts)


def test_strips_are_of_two_to_eight_digits_and_as_often_wide_as_high():
    shapes = Counter()
    for scene in drawn(scenes.draw_strip, 1500):
        assert scene.rows * scene.columns == len(scene.glyphs)
        shapes[scene.rows, scene.columns] += 1
    assert {rows * columns for rows, columns in shapes} == {2, 3, 4, 5, 6, 8}
    assert {(1, 6), (6, 1), (2, 4), (4, 2)} < set(shapes)
    assert set(shapes) == {(columns, rows) for rows, columns in shapes}
    assert max(shapes.values()) < 2 * min(shapes.values())


def test_sums_never_fall_below_zero():
    results = {scene.result for scene in drawn(scenes.draw_sum)}
    assert min(results) == 0
    assert max(results) == 18


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_gist_leaves_out_place_size_number_and_order(draw):
    allowed = {"shapes", "many shapes", "digits", "letters", "bars", *COLOURS, *SHAPES}
    order = list(COLOURS) + list(SHAPES)
    for scene in drawn(draw, 100):
        kind, *present = scene.gist()
        assert {kind, *present} <= allowed
        assert present == sorted(set(present), key=order.index)
        described = set(" ".join(scene.phrases()).split())
        assert set(present) == described & set(order)


# A reading record states its scene in full, but for the places of a crowd (shown by these two tasks);
# single digits are in both splits.
@pytest.mark.parametrize("task", sorted(set(IMAGE_TASKS) - {"count", "coarse", "digit"}))
def test_no_description_is_in_both_splits(task):
    shown = {}
    for split in ("train", "held_out"):
        source = WorldSource(split, f"read_{task}", 300)
        shown[split] = {source[position].turns[0].text.split("\n")[0] for position in range(300)}
    assert not shown["train"] & shown["held_out"]


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_one_scene_in_eight_is_held_out(draw):
    share = np.mean([scenes.split_of(scene) == "held_out" for scene in drawn(draw, 2000)])
    assert share == pytest.approx(1 / 8, abs=0.03)


def test_the_vocabulary_names_every_word_once():
    words = vocabulary()
    assert len(words) == len(set(words)) <= 100
    assert all(word == word.lower() and not set(word) & set(" \t\n") for word in words)

"""The native demo's pictures take as many visual tokens as they have digits, in native resolution alone."""

import pytest

from sailvit.data.processing.images import tile_count
from sailvit.models.loading.build import build
from sailvit.recipes.loader import load_recipe
from sailvit.synthetic.world.source import open_world

OTHERS = {
    "fixed": ["model.image.mode=fixed"],
    "tiled": ["model.image.mode=tiled", "model.image.max_tiles=6"],
}


def tokens_of(overrides, tmp_path):
    """Visual tokens and digits of some of its digits and strips."""
    recipe = load_recipe("native-demo", overrides)
    layout = build(recipe.model, weights="meta").layout
    records = [
        open_world(recipe.sources[name], tmp_path)[position]
        for name in ("digits", "strips")
        for position in range(100)
    ]
    return [
        (
            tile_count(record.images[0], layout) * layout.tokens_per_tile,
            len(record.turns[-1].text.split()),
        )
        for record in records
    ]


def test_a_digit_is_one_visual_token(tmp_path):
    found = tokens_of([], tmp_path)
    assert all(tokens == digits for tokens, digits in found)
    assert {digits for _, digits in found} == {1, 2, 3, 4, 5, 6, 8}


@pytest.mark.parametrize("mode", OTHERS)
def test_squares_take_more_tokens_than_digits(mode, tmp_path):
    found = tokens_of(OTHERS[mode], tmp_path)
    assert all(tokens >= 2 * digits for tokens, digits in found)

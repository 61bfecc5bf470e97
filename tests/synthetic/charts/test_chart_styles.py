from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties, findfont

from sailvit.core.seeding import numpy_generator
from sailvit.synthetic.charts.colours import NAMED, some_colours
from sailvit.synthetic.charts.marks import contrast, pie_radius
from sailvit.synthetic.charts.source import draw_chart
from sailvit.synthetic.charts.styles import _FONTS, some_style
from sailvit.synthetic.charts.tables import draw_table
from sailvit.synthetic.charts.topics import KINS, TOPICS, some_names


def styles():
    return [some_style(numpy_generator(3, n), (360, 900), (300, 680)) for n in range(300)]


def test_sizes_stay_in_their_range_and_type_grows_with_them():
    for style in styles():
        assert 360 <= style.width <= 900
        assert 300 <= style.height <= 680
        assert 8 <= style.type <= 1.2 * max(8, min(style.width, style.height) / 60) + 0.1
        assert not style.legend_right or style.width >= 560


@pytest.mark.parametrize("name", _FONTS)
def test_fonts_come_with_matplotlib(name):
    found = Path(findfont(FontProperties(family=name), fallback_to_default=False))
    assert found.is_relative_to(mpl.get_data_path())


def test_colours_differ_and_named_ones_have_their_names():
    named = 0
    for number in range(300):
        colours = some_colours(numpy_generator(4, number), 1 + number % 7)
        assert len(set(colours.codes)) == 1 + number % 7
        assert all(
            NAMED[name] == code for name, code in zip(colours.names, colours.codes, strict=False)
        )
        assert len(colours.names) in (0, len(colours.codes))
        named += bool(colours.names)
    assert 100 < named < 200


def test_named_colours_are_far_apart():
    codes = [to_rgb(code) for code in NAMED.values()]
    for index, one in enumerate(codes):
        for other in codes[index + 1 :]:
            assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 > 0.25


@pytest.mark.parametrize(
    ("paper", "ink"), [("#ffffff", "dark"), ("#000000", "light"), ("#f2cd2e", "dark")]
)
def test_print_stands_out(paper, ink):
    assert (sum(to_rgb(contrast(paper))) < 1.5) == (ink == "dark")


def test_kins_of_topics_exist_and_have_names_enough():
    for topic in TOPICS:
        assert {*topic.across, *topic.groups} <= set(KINS)
    for kin in KINS.values():
        assert len(set(kin.names)) == len(kin.names) >= 4


def test_ordered_names_are_a_stretch_and_others_are_shuffled():
    rng = numpy_generator(5)
    months = KINS["months"]
    for _ in range(50):
        names = some_names(rng, months, 4)
        start = months.names.index(names[0])
        assert names == months.names[start : start + 4]
    assert len({some_names(rng, KINS["cities"], 3) for _ in range(50)}) > 40


def test_every_topic_and_quantity_is_drawn():
    seen = {draw_table(numpy_generator(6, n), "bar").quantity.name for n in range(600)}
    assert seen == {quantity.name for topic in TOPICS for quantity in topic.quantities}


def test_names_stand_beside_a_pie_where_there_is_room():
    rng = numpy_generator(8)
    places = [pie_radius(draw_chart(rng, "pie"), style) for style in styles()]
    assert 30 < sum(place is None for place in places) < 280
    assert all(0.7 <= place <= 1 for place in places if place is not None)

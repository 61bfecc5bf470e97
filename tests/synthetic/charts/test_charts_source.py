from __future__ import annotations

import pickle

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.processing.images import image_size, load_image
from sailvit.data.sources import open_source
from sailvit.synthetic.charts.source import KINDS, ChartsOptions, ChartsSource, open_charts


def charts(**options) -> ChartsSource:
    return ChartsSource(ChartsOptions.model_validate({"size": 40, **options}))


def test_a_record_depends_on_the_options_and_its_position_only():
    forward, longer = charts(seed=3), charts(size=10**8, seed=3)
    backward = {position: longer[position] for position in reversed(range(40))}
    assert [forward[position] for position in range(40)] == [
        backward[position] for position in range(40)
    ]
    assert longer[10**8 - 1].turns


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"kinds": ["bar", "pie"]}, {"captions": 0.9}, {"width": (500, 600)}]
)
def test_other_options_have_another_fingerprint(other):
    assert charts().fingerprint != charts(**other).fingerprint
    assert charts().fingerprint == charts(kinds=list(KINDS)).fingerprint


def test_kinds_and_captions_come_by_their_shares():
    source = charts(size=3000, kinds={"bar": 3, "scatter": 1}, captions=0.25)
    records = [source[position] for position in range(3000)]
    assert np.mean([record.id.startswith("bar") for record in records]) == pytest.approx(
        0.75, abs=0.03
    )
    assert np.mean([record.kind == "caption" for record in records]) == pytest.approx(
        0.25, abs=0.03
    )


def test_a_record_asks_about_its_only_image():
    for record in (charts(questions=3, captions=0)[position] for position in range(40)):
        marks = [turn.text.count("<image>") for turn in record.turns]
        assert sum(marks) == marks[0] == len(record.images) == 1
        assert [turn.role for turn in record.turns] == ["user", "assistant"] * (
            len(record.turns) // 2
        )
        assert 2 <= len(record.turns) <= 6
        assert len({turn.text for turn in record.turns[::2]}) == len(record.turns) // 2
        assert all(turn.text.strip() for turn in record.turns)


def test_the_registry_opens_charts_and_the_loader_draws_them(tmp_path):
    source = open_source(
        "drawn", SourceConfig(format="charts", options={"size": 5, "kinds": "bar"}), tmp_path
    )
    image = source[2].images[0]
    assert image_size(image) == image.size
    assert load_image(image).shape == (image.size[1], image.size[0], 3)
    assert len(pickle.dumps(source)) < 2000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 5, "kinds": "bat"}, "write bar"),
        ({"size": 5, "kinds": {}}, "at least 1"),
        ({"kinds": "bar"}, "size"),
        ({"size": 5, "width": (600, 400)}, "smaller number first"),
        ({"size": 5, "height": (30, 400)}, "greater than or equal to 300"),
        ({"size": 5, "colour": "red"}, "colour"),
    ],
)
def test_options_that_do_not_hold_are_refused(options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_charts(SourceConfig(format="charts", options=options), tmp_path)


@pytest.mark.parametrize("position", [-1, 40])
def test_a_position_outside_is_refused(position):
    with pytest.raises(IndexError, match="of 40 charts"):
        charts()[position]

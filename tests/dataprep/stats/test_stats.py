"""Statistics: every figure against what was planted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from planted import BROKEN, Planted, jpeg, noise, record, sentences
from small_tokenizers import CHATML, byte_tokenizer, layout_for

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.data.processing.processor import Processor
from sailvit.dataprep.stats.histogram import Histogram
from sailvit.dataprep.stats.pictures import copy_pictures, sample_pictures
from sailvit.dataprep.stats.stats import Joined, evenly, survey


@pytest.fixture(scope="module")
def sources() -> dict[str, Planted]:
    texts = sentences(30)
    photos = [record(i, text, [jpeg(noise(i, 40 + i, 30))]) for i, text in enumerate(texts)]
    photos[7] = record(7, "another text entirely", [jpeg(noise(3), scale=2, quality=60)])
    photos[9] = record(9, texts[2], [photos[4].images[0]])
    photos[11] = BROKEN
    talk = [
        Record(
            str(i), (Turn("user", "Sag etwas."), Turn("assistant", "Ein Hund schläft im Garten."))
        )
        for i in range(5)
    ]
    return {"photos": Planted(photos), "talk": Planted(talk)}


@pytest.fixture(scope="module")
def values(sources) -> dict:
    return survey(sources)


def test_counts(values):
    assert [source["records"] for source in values["sources"]] == [30, 5]
    assert (values["records"], values["images"], values["read"]) == (34, 29, 35)
    assert values["kinds"] == {"caption": 29, "chat": 5}
    assert values["unreadable"] == {"broken row": 1}
    assert values["damage"] == [
        {"kind": "broken row", "source": "photos", "position": 11, "error": "the record is broken"}
    ]
    assert values["languages"]["counts"]["de"] == 5
    assert json.loads(json.dumps(values)) == values


def test_measures(values, sources):
    widths = [Joined(sources)[i].images for i in range(30) if i != 11]
    assert values["measures"]["width"]["count"] == len(widths) == 29
    assert (values["measures"]["width"]["min"], values["measures"]["width"]["max"]) == (40, 80)
    assert (values["measures"]["height"]["min"], values["measures"]["height"]["max"]) == (30, 60)
    assert values["measures"]["bytes"]["max"] == max(len(images[0]) for images in widths)
    assert values["measures"]["turns"]["bins"] == [[2, 3, 34]]
    assert values["measures"]["images_per_record"]["bins"] == [[0, 1, 5], [1, 2, 29]]
    assert values["measures"]["tokens"] is None


def test_copies(values):
    assert values["copies"]["text"]["count"] == 5
    assert values["copies"]["image"] == {
        "count": 1,
        "examples": [
            {"copy": {"source": "photos", "position": 9}, "of": {"source": "photos", "position": 4}}
        ],
    }
    assert [example["copy"]["position"] for example in values["copies"]["picture"]["examples"]] == [
        7,
        9,
    ]


def test_tokens_and_tiles_are_those_of_the_recipe(sources):
    tokenizer = byte_tokenizer(CHATML)
    processor = Processor(tokenizer, layout_for(tokenizer, max_tiles=4), 4096)
    values = survey(sources, processor=processor, near=False)
    costs = [processor.cost(Joined(sources)[i]) for i in range(35) if i != 11]
    assert values["measures"]["tokens"]["mean"] == pytest.approx(
        np.mean([tokens for tokens, _ in costs])
    )
    assert values["measures"]["tiles"]["max"] == max(tiles for _, tiles in costs)
    assert "picture" not in values["copies"]


def test_workers_change_nothing(sources, values):
    assert survey(sources, workers=2) == values


def test_a_sample_is_spread_evenly(sources):
    assert list(evenly(100, 4)) == [0, 25, 50, 75]
    assert survey(sources, samples=7)["read"] == 7
    assert survey(sources, samples=700)["read"] == 35


def test_no_records_at_all():
    with pytest.raises(DataError, match="found no records in empty"):
        survey({"empty": Planted([])})


def test_positions_over_several_sources(sources):
    joined = Joined(sources)
    assert len(joined) == 35
    assert [joined.find(place) for place in (0, 29, 30, 34)] == [
        ("photos", 0),
        ("photos", 29),
        ("talk", 0),
        ("talk", 4),
    ]
    assert all(joined.place(*joined.find(place)) == place for place in range(35))
    with pytest.raises(IndexError):
        joined.find(35)


def test_pictures(sources, values):
    shown = sample_pictures(sources, 35)
    assert len(shown) == 34
    assert shown[0]["image"].startswith("data:image/jpeg;base64,")
    assert shown[-1]["image"] is None
    (pair, _) = copy_pictures(sources, values["copies"]["picture"]["examples"])
    assert (pair["first"]["position"], pair["again"]["position"]) == (3, 7)


@pytest.mark.parametrize("whole", [False, True])
def test_histograms_add_up_and_know_their_quantiles(whole: bool):
    values = np.random.default_rng(0).integers(0, 900, 5000)
    together, parts = Histogram(whole=whole), Histogram(whole=whole)
    together.add(values.tolist())
    for block in np.array_split(values, 7):
        part = Histogram(whole=whole)
        part.add(block.tolist())
        parts.merge(part)
    summary = parts.summary()
    assert summary == together.summary()
    assert (summary["min"], summary["max"], summary["count"]) == (values.min(), values.max(), 5000)
    assert sum(count for *_, count in summary["bins"]) == 5000
    for name, share in (("p5", 0.05), ("median", 0.5), ("p95", 0.95)):
        assert summary[name] == pytest.approx(np.quantile(values, share), rel=0.03)


def test_histograms_of_nothing_and_of_very_many_different_numbers():
    assert Histogram().summary() is None
    histogram = Histogram(whole=True)
    histogram.add(range(5000))
    assert len(histogram.summary()["bins"]) == 1001

"""Curation as a whole: what stays, why the rest goes, and that nobody's order or number of workers matters."""

from __future__ import annotations

import numpy as np
import pytest
from planted import BROKEN, PHOTOGRAPHS, Planted, jpeg, noise, photograph, record, sentences

from sailvit.core.errors import DataError
from sailvit.dataprep.curate.curating import Curated, curate
from sailvit.dataprep.curate.resampling import Resampling, chance
from sailvit.dataprep.curate.settings import Curation

PHRASE = "the image shows a close view of"


def curation(*filters: dict, **settings: object) -> Curation:
    return Curation(filters=list(filters), **settings)


def account(curated: Curated, name: str) -> dict:
    return next(found for found in curated.report["filters"] if found["filter"] == name)


@pytest.fixture(scope="module")
def mixed() -> Planted:
    """Records of which every tenth has something wrong."""
    records = [record(i, text, [jpeg(noise(i))]) for i, text in enumerate(sentences(60))]
    records[10] = record(10, "no", [jpeg(noise(10))])
    records[20] = record(20, "red cat " * 30, [jpeg(noise(20))])
    records[30] = record(30, sentences(1, seed=9)[0], [jpeg(noise(30, width=300))])
    records[40] = BROKEN
    records[50] = record(50, sentences(1, seed=8)[0], [jpeg(noise(50))[:200]])
    records[15] = record(15, records[5].turns[1].text, [jpeg(noise(5))])
    records[25] = record(25, sentences(1, seed=7)[0], [jpeg(noise(6), scale=1.5, quality=60)])
    return Planted(records)


FILTERS = (
    {"near_duplicate": {}},
    {"length": {"at_least": 5}},
    {"repetition": {"at_most": 0.6}},
    {"aspect": {"at_most": 3}},
    {"duplicate": {}},
)


def test_exactly_the_planted_records_go_each_for_its_reason(mixed):
    curated = curate(mixed, curation(*FILTERS))
    assert sorted(set(range(60)) - set(curated.positions.tolist())) == [10, 15, 20, 25, 30, 40, 50]
    assert [found["filter"] for found in curated.report["filters"]] == [
        "unreadable",
        "length",
        "repetition",
        "aspect",
        "near_duplicate",
        "duplicate",
    ]
    for name, positions, why in (
        ("length", [10], "characters below 5"),
        ("repetition", [20], "repeated words above 0.6"),
        ("aspect", [30], "aspect above 3"),
        ("near_duplicate", [15, 25], "looks like an earlier record"),
    ):
        found = account(curated, name)
        assert [example["position"] for example in found["examples"]] == positions
        assert found["why"] == {why: len(positions)}
    assert account(curated, "unreadable")["dropped"] == 2
    assert account(curated, "unreadable")["why"]["broken row"] == 1
    assert [each["found"] for each in account(curated, "near_duplicate")["examples"]] == [
        "as at position 5",
        "as at position 6",
    ]
    assert (curated.report["kept"], curated.report["dropped"]) == (53, 7)
    seen = [found["seen"] for found in curated.report["filters"]]
    assert seen == [60, 58, 57, 56, 55, 53]


def test_workers_change_nothing(mixed):
    settings = curation(*FILTERS, resampling={"n": 3, "share": 0.03})
    alone, pooled = (curate(mixed, settings, workers=workers) for workers in (0, 2))
    assert alone.report == pooled.report
    assert np.array_equal(alone.kept, pooled.kept)


def test_a_copy_that_goes_for_another_reason_is_not_the_first():
    small = record(0, sentences(1)[0], [jpeg(noise(1, 20, 15))])
    large = record(1, sentences(1)[0], [jpeg(noise(1, 80, 60))])
    both = Planted([small, large])
    assert curate(both, curation({"near_duplicate": {}})).positions.tolist() == [0]
    filters = ({"near_duplicate": {}}, {"resolution": {"side_at_least": 30}})
    assert curate(both, curation(*filters)).positions.tolist() == [1]


def test_photographs_that_differ_stay_and_their_copies_go():
    pictures = [photograph(name) for name in PHOTOGRAPHS]
    records = [record(i, f"photograph {i}", [jpeg(pixels)]) for i, pixels in enumerate(pictures)]
    records += [
        record(i, "copy", [jpeg(p, quality=50, scale=0.6)])
        for i, p in enumerate(pictures, len(pictures))
    ]
    curated = curate(Planted(records), curation({"near_duplicate": {}}))
    assert curated.positions.tolist() == list(range(len(pictures)))


def phrased(count: int, share: float) -> list:
    """Captions of which a share starts with the same phrase."""
    texts = sentences(count, seed=5)
    often = np.random.default_rng(0).permutation(count) < round(share * count)
    return [
        record(f"r{i}", f"{PHRASE} {text}" if o else text)
        for i, (text, o) in enumerate(zip(texts, often, strict=True))
    ]


def share_of_phrase(curated: Curated, source: Planted) -> float:
    return float(np.mean([PHRASE in source[int(p)].turns[1].text for p in curated.positions]))


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_a_phrase_of_30_percent_falls_to_the_share_that_is_asked_for(share: float):
    source = Planted(phrased(3000, 0.3))
    curated = curate(source, curation(resampling={"share": share}))
    # The number kept is binomial: three standard deviations of its share are under 1.4 points.
    assert share_of_phrase(curated, source) == pytest.approx(share, abs=0.014)
    assert curated.report["kept"] / 3000 == pytest.approx(0.7 / (1 - share), abs=0.01)
    ngrams = curated.report["ngrams"]
    top = next(row for row in ngrams["top"] if row["words"] == "the image shows a")
    assert top["before"] == pytest.approx(0.3, abs=1e-9)
    assert top["after"] == pytest.approx(share, abs=0.014)
    assert ngrams["after"]["top10_share"] < 0.5 * ngrams["before"]["top10_share"]
    assert ngrams["after"]["distinct_share"] > ngrams["before"]["distinct_share"]
    assert ngrams["kept"] == curated.report["kept"] / 3000
    assert account(curated, "resampling")["why"] == {
        "over-represented n-gram": curated.report["dropped"]
    }


def test_strength_goes_part_of_the_way_and_the_floor_holds():
    source = Planted(phrased(1200, 0.3))
    half = curate(source, curation(resampling={"strength": 0.5}))
    assert 0.1 < share_of_phrase(half, source) < 0.2
    often = Planted(phrased(1000, 0.8))
    floor = curate(often, curation(resampling={"floor": 0.25})).report["kept"]
    assert floor == pytest.approx(200 + 0.25 * 800, abs=45)


def test_a_phrase_that_all_have_is_left_alone():
    assert (
        curate(Planted(phrased(300, 1.0)), curation(resampling={"share": 0.2})).report["kept"]
        == 300
    )


def test_what_is_kept_depends_on_the_record_and_not_on_its_place():
    records = phrased(900, 0.3)
    kept = []
    for order in (np.arange(900), np.random.default_rng(2).permutation(900)):
        source = Planted([records[i] for i in order])
        kept.append({source[int(p)].id for p in curate(source, curation(resampling={})).positions})
    assert kept[0] == kept[1]
    other = {
        records[int(p)].id
        for p in curate(Planted(records), curation(resampling={}, seed=1)).positions
    }
    assert other != kept[0]


def test_a_smaller_share_keeps_a_subset():
    source = Planted(phrased(900, 0.3))
    loose, tight = (
        set(curate(source, curation(resampling={"share": s})).positions.tolist())
        for s in (0.1, 0.05)
    )
    assert tight < loose


def test_probabilities():
    resampling = Resampling(share=0.1, floor=0.05)
    assert resampling.probability(np.array([0.02, 0.1])) == 1.0
    assert resampling.probability(np.array([0.02, 0.5])) == pytest.approx(1 / 9)
    assert resampling.probability(np.array([0.89])) == 0.05
    assert resampling.probability(np.array([0.3, 1.0])) == pytest.approx((1 / 9) / (3 / 7))
    assert resampling.probability(np.zeros(0)) == 1.0


def test_chances_are_even_and_take_any_id():
    drawn = np.array([chance(0, str(i)) for i in range(4000)])
    assert np.histogram(drawn, bins=10, range=(0, 1))[0] == pytest.approx(400, abs=75)
    assert 0 <= chance(0, "\ud800") < 1


def test_a_model_judges_images_with_their_texts():
    records = [record(i, text, [jpeg(noise(i))] * (i % 3)) for i, text in enumerate(sentences(12))]
    records[4] = record(4, "bad", [jpeg(noise(4))[:100]])
    source, calls = Planted(records), []

    def scorer(images, texts):
        calls.append(len(images))
        assert len(images) == len(texts)
        return [0.1 if text == records[7].turns[1].text else 0.5 for text in texts]

    settings = curation(
        {"similarity": {"model": "m", "at_least": 0.2, "batch": 4}}, {"length": {"at_most": 1000}}
    )
    curated = curate(source, settings, scorer=lambda model: scorer)
    assert sorted(set(range(12)) - set(curated.positions.tolist())) == [4, 7]
    assert account(curated, "similarity")["examples"][0]["found"] == "0.1"
    assert account(curated, "unreadable")["dropped"] == 1
    assert max(calls) <= 5
    with pytest.raises(DataError, match="needs a model"):
        curate(source, settings)


def test_kinds_limit_a_filter_of_copies():
    records = [
        record(i, "same", [jpeg(noise(1))], kind="ocr" if i % 2 else "caption") for i in range(6)
    ]
    curated = curate(Planted(records), curation({"duplicate": {"kinds": ["caption"]}}))
    assert curated.positions.tolist() == [0, 1, 3, 5]


def test_progress_is_told_per_step(mixed):
    told = []
    curate(mixed, curation(*FILTERS), progress=lambda *step: told.append(step))
    assert told == [("filters", 60, 60), ("near_duplicate", 60, 60), ("duplicate", 60, 60)]

"""Known numbers of cells give the differences, tests and sentences that follow from them."""

import math

import pytest
from scipy import stats

from sailvit.core.errors import DataError
from sailvit.core.study.cells import cells_of
from sailvit.evaluation.studies.results import results
from sailvit.evaluation.studies.versions import made_by
from tiny_studies import cell, study

CLAIMS = [
    {"says": "Refined is better.", "over": ["data"]},
    {"says": "Stages beat training at once.", "than": "joint"},
    {"says": "Refined is 50 points better.", "by": 50},
]
FACTORS = {
    "arm": {"gradual": {}, "base": {"refine": None}, "joint": {"refine": {"joint": "samples"}}},
    "data": {"full": {}, "half": {"target": {"scale": 0.5}}},
}
MEANS = {
    ("base", "full"): [0.4, 0.5, 0.4],
    ("gradual", "full"): [0.6, 0.7, 0.7],
    ("joint", "full"): [0.6, 0.6, 0.7],
    ("base", "half"): [0.3, 0.3, 0.4],
    ("gradual", "half"): [0.5, 0.5, 0.6],
}


def made(**changes):
    contrast = {"factor": "arm", "base": "base", "refined": "gradual"}
    return study(factors=FACTORS, contrast=contrast, claims=CLAIMS, **changes)


def finished(given, means=MEANS):
    return [
        cell(levels, each.seed, means[tuple(levels.values())][each.seed], name=each.name)
        for each in cells_of(given)
        for levels in [dict(each.levels)]
    ]


def found(given, cells):
    value = results(given, cells)
    return value, {(d["better"], d["others"]["data"]): d for d in value["differences"]}


def test_differences_have_one_spread_and_students_intervals():
    given = made()
    value, differences = found(given, finished(given))
    # By hand: 20 20 30; 20 10 30; 20 20 20, each in three seeds.
    squares = 200 / 3 + 200 + 0
    deviation = math.sqrt(squares / 6)
    assert value["spread"]["world"] == {
        "deviation": pytest.approx(deviation),
        "freedom": 6,
        "unit": "points",
    }
    gradual = differences["gradual", "full"]
    assert gradual["difference"] == pytest.approx(70 / 3)
    reach = deviation / math.sqrt(3) * stats.t.ppf(0.975, 6)
    assert gradual["low"] == pytest.approx(70 / 3 - reach)
    assert gradual["high"] == pytest.approx(70 / 3 + reach)
    assert gradual["p"] == pytest.approx(2 * stats.t.sf(70 / 3 / (deviation / math.sqrt(3)), 6))
    assert (gradual["than mean"], gradual["better mean"]) == pytest.approx((130 / 3, 200 / 3))
    assert gradual["tasks"] == {"a": pytest.approx(70 / 3)}


def test_differences_are_corrected_after_holm():
    given = made()
    _, differences = found(given, finished(given))
    smallest = min(d["p"] for d in differences.values())
    assert min(d["corrected"] for d in differences.values()) == pytest.approx(3 * smallest)
    assert all(d["corrected"] >= d["p"] for d in differences.values())
    assert differences["joint", "full"]["word"] == "improves"


def test_the_questions_of_all_seeds_are_compared_by_mcnemars_test():
    given = made()
    _, differences = found(given, finished(given))
    # 7 questions gained of 30 and none lost.
    assert differences["gradual", "full"]["question_p"] == pytest.approx(2 * 0.5**7)


def test_claims_hold_are_not_shown_or_do_not_hold():
    given = made()
    value, _ = found(given, finished(given))
    assert [claim["verdict"] for claim in value["claims"]] == [
        "holds",
        "not shown",
        "does not hold",
    ]
    first, second, third = (claim["sentence"] for claim in value["claims"])
    assert first.startswith("Refined is better. Holds: by default +23.3 points, 95 % +")
    assert "; data half +20.0 points" in first
    assert "(3 seeds, p 0.00" in first
    assert second.startswith("Stages beat training at once. Not shown: by default +3.3 points")
    assert third.startswith("Refined is 50 points better. Does not hold: by default +23.3 points")


def test_one_seed_shows_nothing():
    given = made(seeds=1)
    value, differences = found(given, finished(given))
    assert value["spread"] == {"world": None}
    assert differences["gradual", "full"]["word"] == "one seed"
    assert [claim["verdict"] for claim in value["claims"]] == ["not shown"] * 3
    assert "by default +20.0 points (1 seed)" in value["claims"][0]["sentence"]


def test_failed_and_missing_cells_are_listed_and_left_out_of_pairs():
    given = made()
    cells = finished(given)
    broken = next(each for each in cells if each["cell"] == "base,data=half,seed=2")
    cells.remove(broken)
    cells.append(
        cell(broken["levels"], 2, 0.0, name=broken["cell"], status="failed", reason="no memory")
    )
    cells = [each for each in cells if each["cell"] != "joint,seed=0"]
    value, differences = found(given, cells)
    assert value["cells"]["failed"] == {"base,data=half,seed=2": "no memory"}
    assert value["cells"]["missing"] == ["joint,seed=0"]
    assert (value["cells"]["done"], value["cells"]["all"]) == (13, 15)
    assert differences["gradual", "half"]["seeds"] == (0, 1)
    assert differences["joint", "full"]["seeds"] == (1, 2)


def test_cells_that_were_measured_on_other_tasks_are_not_compared():
    given = made()
    for wrong in range(2):
        cells = finished(given)
        cells[wrong]["values"]["world"]["scores"]["b"] = 0.1
        with pytest.raises(DataError, match=r"holds a in some cells of arm .*, and a, b in others"):
            results(given, cells)


def test_equal_cells_do_not_differ():
    given = made()
    _, differences = found(given, finished(given, {name: [0.5] * 3 for name in MEANS}))
    assert {d["word"] for d in differences.values()} == {"does not differ"}
    assert {d["p"] for d in differences.values()} == {1.0}


def test_of_texts_less_is_better():
    claims = [
        {"says": "It forgets less.", "than": "joint"},
        {"says": "It forgets 2 nats less.", "than": "joint", "by": 2},
        {"says": "It forgets less than the base.", "than": "base"},
    ]
    texts = {"kind": "text", "of": "refine", "source": {"format": "world"}}
    given = study(factors=FACTORS, contrast=made().contrast.model_dump(), claims=claims)
    given = given.model_copy(
        update={"measures": {"world": given.measures["world"].model_validate(texts)}}
    )
    nats = {"base": 1.0, "gradual": 1.5, "joint": 2.5}
    means = {(arm, data): [nats[arm], nats[arm] + 0.1] for arm, data in MEANS}
    means = {key: [*value, value[0] - 0.05] for key, value in means.items()}
    means["gradual", "full"][0] += 0.01
    value, differences = found(given, finished(given, means))
    assert [claim["verdict"] for claim in value["claims"]] == [
        "holds",
        "does not hold",
        "does not hold",
    ]
    gradual = differences["gradual", "full"]
    assert (gradual["unit"], gradual["word"]) == ("nats", "worse")
    # In nats, not in hundredths of them.
    assert gradual["difference"] == pytest.approx(0.5 + 0.01 / 3)
    assert "by default -0.997 nats, 95 % -" in value["claims"][0]["sentence"]


def told(given, means=MEANS):
    files = finished(given, means)
    return [
        {**f, "made by": made_by(given, c)} for f, c in zip(files, cells_of(given), strict=True)
    ]


def test_cells_of_a_level_that_was_edited_since_are_left_out_and_listed():
    given, edited = made(), made()
    edited.factors["data"]["half"]["target"] = edited.factors["data"]["half"]["target"].model_copy(
        update={"scale": 0.25}
    )
    value, differences = found(edited, told(given))
    assert value["cells"]["done"] == 9
    assert value["cells"]["of another version"] == sorted(
        each.name for each in cells_of(given) if "data=half" in each.name
    )
    assert set(value["cells"]["of another version"]) <= set(value["cells"]["missing"])
    assert differences["gradual", "half"]["difference"] is None
    assert differences["gradual", "full"]["difference"] == pytest.approx(70 / 3)
    assert found(given, told(given))[0]["cells"]["of another version"] == []


def test_a_measure_that_is_taken_otherwise_now_has_no_values_of_before():
    given = made()
    edited = made(measures={"world": {"of": "target", "per_task": 3}})
    value, differences = found(edited, told(given))
    assert value["cells"]["of another version"] == []
    assert differences["gradual", "full"]["difference"] is None
    elsewhere = made(measures={"world": {"of": "target", "per_task": 2, "over": ["data"]}})
    assert found(elsewhere, told(given))[1]["gradual", "full"]["difference"] is not None


def test_the_same_study_in_another_folder_is_the_same_version():
    one, other = (
        made(steps={n: {"recipe": f"{place}/{n}.yaml"} for n in ("refine", "target")})
        for place in ("/a", "/b/c")
    )
    (first, *_), (second, *_) = cells_of(one), cells_of(other)
    assert made_by(one, first) == made_by(other, second)

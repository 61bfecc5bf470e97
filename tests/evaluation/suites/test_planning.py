"""Which sets are run, of which kind, and the average over them."""

import pytest
from question_tables import choice_rows, write_table

from sailvit.core.errors import DataError
from sailvit.evaluation.suites.average import opencompass_average
from sailvit.evaluation.suites.planning import plan_suite, read_suite, whereabouts
from sailvit.evaluation.suites.sets import OFFICIAL, known_set, named_set

SCORES = {each.name: 50.0 for each in OFFICIAL if each.column}


def test_missing_files_are_named_with_their_source_and_others_run(tmp_path):
    write_table(tmp_path / "MMStar.tsv", choice_rows(2))
    plan = plan_suite("opencompass", tmp_path)
    (only,) = plan.sets
    assert only.questions.name == "MMStar"
    assert "not that of the official file" in only.note
    assert len(plan.missing) == len(OFFICIAL) - 1
    told = whereabouts(known_set("MMVet"), tmp_path)
    assert told.startswith(str(tmp_path / "MMVet.tsv"))
    assert "https://" in told


def test_tables_of_ones_own_have_the_kind_that_name_and_columns_say(tmp_path):
    mine = write_table(tmp_path / "mine.tsv", choice_rows(2))
    (only,) = plan_suite("opencompass", tmp_path / "none", names=[str(mine)]).sets
    assert (only.questions.kind, only.note) == ("mcq", "")
    (only,) = plan_suite("demo", tmp_path, names=[str(mine)], kinds={"mine": "circular"}).sets
    assert only.questions.kind == "circular"


@pytest.mark.parametrize(
    ("name", "row", "kind"),
    [
        ("MMBench_mini", {"A": "x", "B": "y", "answer": "A"}, "circular"),
        ("MMMU_mini", {"A": "x", "B": "y", "answer": "A"}, "mmmu"),
        ("mine", {"answer": "Yes"}, "yes-no"),
        ("HallusionBench_mini", {"answer": "Yes"}, "hallusion"),
        ("mine", {"answer": "['a', 'b']"}, "vqa"),
        ("mine", {"answer": "red"}, "exact"),
        ("ChartQA_mini", {"answer": "red"}, "relaxed"),
        ("MME", {"answer": "Yes"}, "mme"),
    ],
)
def test_kinds_of_tables(name, row, kind):
    assert named_set(name, [row]).kind == kind


def test_the_average_is_over_eight_columns_with_both_languages_as_one():
    scores = SCORES | {"MMBench_DEV_EN_V11": 90.0, "MMBench_DEV_CN_V11": 50.0, "POPE": 1.0}
    average = opencompass_average(scores, "2026-06", "gpt")
    assert len(average.columns) == 8
    assert average.value == round((70 + 7 * 50) / 8, 1)
    assert "DEV" in average.said
    assert "judge gpt" in average.said
    assert "matcher 2026-06" in average.said


def test_the_average_is_refused_with_what_is_missing():
    average = opencompass_average(SCORES | {"MMVet": None}, "2026-06", None)
    assert average.value is None
    assert average.missing == ("MMVet",)
    assert "no judge" in average.said


def test_a_part_of_a_set_is_no_score_of_the_average():
    whole = opencompass_average(SCORES, "2026-06", None)
    part = opencompass_average(SCORES, "2026-06", None, cut=["OCRBench", "MMMU_DEV_VAL"])
    assert (whole.value, part.value) == (50.0, None)
    assert part.missing == ("MMMU_DEV_VAL", "OCRBench")
    assert not {"OCRBench", "MMMU_VAL"} & part.columns.keys()
    assert part.said == f"{whole.said}; by --limit a part of 2 sets was asked, which is no score"


def test_two_tables_of_one_name_are_refused(tmp_path):
    names = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        names.append(str(write_table(tmp_path / place / "my.tsv", choice_rows(2))))
    with pytest.raises(DataError, match=r"a/my\.tsv and .*b/my\.tsv are both called my"):
        plan_suite("opencompass", tmp_path, names=names)


def test_unknown_suites_are_refused():
    with pytest.raises(DataError, match="opencompass or demo"):
        read_suite("x")

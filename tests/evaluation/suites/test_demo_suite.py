"""The demo's suite: tables that read, and right answers that score in full."""

import pytest

from sailvit.evaluation.scoring.cells import read_back
from sailvit.evaluation.scoring.kinds import score_set
from sailvit.evaluation.scoring.rows import typed_rows
from sailvit.evaluation.suites.demo import SETS, write_suite
from sailvit.evaluation.suites.planning import plan_suite


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_suite(folder, 8)
    return folder


def right(row: dict[str, str]) -> str:
    """The right answer in the words of the model."""
    answer = row["answer"]
    if row.get("A"):
        return row[answer]
    return answer.strip("[]'") if answer.startswith("['") else answer


@pytest.mark.parametrize("place", range(len(SETS)), ids=lambda place: SETS[place].name)
def test_right_answers_score_in_full_and_wrong_ones_nothing(folder, place):
    planned = plan_suite("demo", folder).sets[place]
    rows = planned.table.rows
    kind = planned.questions.kind
    made = score_set(kind, typed_rows(rows), read_back([right(row) for row in rows]))
    assert made.score == pytest.approx(len(rows) / 10 if kind == "ocrbench" else 100)
    assert score_set(kind, typed_rows(rows), read_back(["hm"] * len(rows))).score == 0
    assert all(planned.table.images(position) for position in range(len(rows)))


def test_rotations_share_an_image_and_two_images_differ(folder):
    sets = {each.questions.name: each.table for each in plan_suite("demo", folder).sets}
    circular = sets["demo_circular"]
    assert len(circular) == 4 * 8
    assert circular.images(0) == circular.images(1)
    first, second = sets["demo_two_images"].images(0)
    assert first != second


def test_the_suite_is_the_same_for_the_same_arguments(folder, tmp_path):
    for path in write_suite(tmp_path, 8):
        assert path.read_bytes() == (folder / path.name).read_bytes()

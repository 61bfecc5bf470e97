"""Tables of questions: images from cells, other rows, lists and paths."""

import hashlib
import os
import shutil

import pytest
from question_tables import choice_rows, image_cell, write_table

from sailvit.core.errors import DataError
from sailvit.data.processing.images import load_image
from sailvit.evaluation.suites.tables import QuestionTable


def shades(table: QuestionTable, position: int) -> list[int]:
    return [int(load_image(image)[0, 0, 0]) for image in table.images(position)]


def test_images_come_from_the_row_another_row_or_a_list(tmp_path):
    rows = [
        {"index": "1", "image": image_cell(10), "question": "a"},
        {"index": "1000001", "image": "1", "question": "line\nbreak"},
        {"index": "7", "image": repr([image_cell(20), image_cell(30)]), "question": "c"},
    ]
    path = write_table(tmp_path / "t.tsv", rows)
    table = QuestionTable(path)
    assert [shades(table, position) for position in range(3)] == [[10], [10], [20, 30]]
    assert table.rows[1] == {"index": "1000001", "question": "line\nbreak"}
    assert table.image_digest(0) == table.image_digest(1) != table.image_digest(2)
    assert table.md5 == hashlib.md5(path.read_bytes()).hexdigest()


def test_rows_without_image_are_dropped_as_by_the_kit(tmp_path):
    rows = [{"index": "1", "image": "", "question": "a"}, *choice_rows(1)]
    assert [row["index"] for row in QuestionTable(write_table(tmp_path / "t.tsv", rows)).rows] == [
        "0"
    ]


def test_images_by_path_lie_beside_the_table(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    rows = [{"index": "1", "image_path": "x.png", "question": "a"}]
    table = QuestionTable(write_table(tmp_path / "t.tsv", rows))
    assert table.images(0) == (tmp_path / "x.png",)
    rows[0]["image_path"] = "../secret.png"
    with pytest.raises(DataError):
        QuestionTable(write_table(tmp_path / "t.tsv", rows)).images(0)


def test_images_by_path_are_known_by_their_files(tmp_path):
    rows = [{"index": "1", "image_path": "x.png", "question": "a"}]
    path = write_table(tmp_path / "t.tsv", rows)
    (tmp_path / "other").mkdir()

    def digest(images=None) -> str:
        return QuestionTable(path, images).image_digest(0)

    missing = digest()
    (tmp_path / "x.png").write_bytes(b"1")
    first = digest()
    assert digest() == first != missing
    # Another picture of the same size.
    (tmp_path / "x.png").write_bytes(b"2")
    os.utime(tmp_path / "x.png", ns=(1, 1))
    assert digest() not in (first, missing)
    shutil.copy2(tmp_path / "x.png", tmp_path / "other")
    assert digest(tmp_path / "other") != digest()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*choice_rows(1), *choice_rows(1)], "comes twice"),
        ([{"index": "1", "image": "9", "question": "a"}], "index of a row that holds an image"),
        ([{"index": "1", "image": "", "question": "a"}], "no row with an image"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        QuestionTable(write_table(tmp_path / "t.tsv", rows))

"""VLMEvalKit tables: prompts, references between rows, numbered marks, and refusals that name the line."""

from __future__ import annotations

import csv
import pickle
from base64 import b64encode

import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Turn
from sailvit.data.sources import open_source

RED, BLUE = (bytes([shade]) * 60 for shade in (1, 2))
RED_CELL, BLUE_CELL = (b64encode(picture).decode() for picture in (RED, BLUE))


def written(folder, rows, newline="\n"):
    """The rows as pandas writes them: quoted where needed, missing cells empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (folder / "t.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, delimiter="\t", lineterminator=newline)
        table.writeheader()
        table.writerows(rows)


def opened(folder, rows=None, images=None, **options):
    if rows is not None:
        written(folder, rows)
    return open_source(
        "src", SourceConfig(format="tsv", path="t.tsv", images=images, options=options), folder
    )


def row(index=0, image=RED_CELL, question="what?", answer="a cat", **cells):
    return {"index": index, "image": image, "question": question, "answer": answer, **cells}


def test_a_bare_question(tmp_path):
    record = opened(tmp_path, [row("VD_1")])[0]
    assert (record.id, record.images, record.kind) == ("VD_1", (RED,), "qa")
    assert record.turns == (Turn("user", "<image>\nwhat?"), Turn("assistant", "a cat"))


def test_options_and_hint_make_the_default_prompt(tmp_path):
    rows = [row(0, answer="B", hint="look", A="cat", B="dog", C=""), row(1, answer="A", A="x")]
    source = opened(tmp_path, rows)
    text = (
        "<image>\nHint: look\nQuestion: what?\nOptions:\nA. cat\nB. dog\n"
        "Please select the correct answer from the options above."
    )
    assert source[0].turns == (Turn("user", text), Turn("assistant", "B"))
    assert (
        opened(tmp_path, ask="Letter?")[1].turns[0].text
        == "<image>\nQuestion: what?\nOptions:\nA. x\nLetter?"
    )


def test_a_row_may_name_the_row_that_holds_its_image(tmp_path):
    source = opened(tmp_path, [row(0, "7"), row(7, BLUE_CELL), row(1000007, "7"), row(1)])
    assert [source[n].images for n in range(4)] == [(BLUE,), (BLUE,), (BLUE,), (RED,)]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_cells_with_breaks_tabs_and_quotes_keep_rows_apart(tmp_path, newline):
    question = 'a "5\' pipe"\n\nor\ta tab\n? ü🟦'
    written(tmp_path, [row(0, question=question), row(1, question='5" pipe'), row(2)], newline)
    source = opened(tmp_path)
    assert [source[n].turns[0].text for n in (2, 0, 1)] == [
        "<image>\nwhat?",
        f"<image>\n{question}",
        '<image>\n5" pipe',
    ]


def test_several_images_stand_first_or_where_their_numbers_are(tmp_path):
    both = str([RED_CELL, BLUE_CELL])
    rows = [
        row(0, both),
        row(1, both, "<image 2> or?", A="<image 1>", B="<image 2>"),
        row(2, both, "<image 2>?"),
    ]
    source = opened(tmp_path, rows)
    assert (source[0].turns[0].text, source[0].images) == ("<image>\n<image>\nwhat?", (RED, BLUE))
    assert (
        source[1]
        .turns[0]
        .text.startswith("Question: <image> or?\nOptions:\nA. <image>\nB. <image>\n")
    )
    assert source[1].images == (BLUE, RED, BLUE)
    assert source[2].images == (BLUE,)


def test_photographs_are_longer_than_csv_allows_by_itself(tmp_path):
    photo = bytes(400_000)
    assert opened(tmp_path, [row(0, b64encode(photo).decode())])[0].images == (photo,)


def test_images_by_path(tmp_path):
    rows = [{"index": 0, "image_path": "a.png", "question": "what?", "answer": "a"}]
    rows += [{"index": 1, "image_path": "['a.png', 'b.png']", "question": "what?", "answer": "a"}]
    source = opened(tmp_path, rows, images="photos")
    assert source[0].images == (tmp_path / "photos/a.png",)
    assert source[1].images == (tmp_path / "photos/a.png", tmp_path / "photos/b.png")


def test_rows_without_image_are_dropped_or_kept_as_text(tmp_path):
    rows = [row(0, ""), row(1), row(2, "")]
    dropped, kept = opened(tmp_path, rows), opened(tmp_path, without_image="keep")
    assert [dropped[n].id for n in range(len(dropped))] == ["1"]
    assert [(kept[n].id, len(kept[n].images)) for n in range(len(kept))] == [
        ("0", 0),
        ("1", 1),
        ("2", 0),
    ]
    assert kept[0].turns[0].text == "what?"


@pytest.mark.parametrize(
    ("cell", "answer"), [("['10 am', '10:00']", "10 am"), ("[1, 2]", "[1, 2]"), ("[a]", "[a]")]
)
def test_of_several_answers_the_first_is_learnt(tmp_path, cell, answer):
    assert opened(tmp_path, [row(answer=cell)])[0].turns[1].text == answer


def test_columns_that_are_not_read_are_listed(tmp_path):
    """A hint is read where there are options; empty cells say nothing."""
    rows = [
        row(0, hint="look", A="cat", category="colour", split="dev"),
        row(1, hint="look", answer="<box>1</box>", split="dev"),
        row(2, category=" "),
    ]
    source = opened(tmp_path, rows)
    assert [source[n].unread for n in range(3)] == [
        ("category", "split"),
        ("hint", "split", "<box>"),
        (),
    ]


def test_limit_fingerprint_and_other_processes(tmp_path):
    rows = [row(n) for n in range(3)]
    source = opened(tmp_path, rows)
    assert pickle.loads(pickle.dumps(source))[2] == source[2]
    assert len(opened(tmp_path, limit=2)) == 2
    assert opened(tmp_path).fingerprint == source.fingerprint
    rows[2]["answer"] = "a rat"
    assert opened(tmp_path, rows).fingerprint != source.fingerprint


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (row(1, "!" * 80), r"t\.tsv line 4, index 1: image '!+'\.\.\. is not base64"),
        (row(1, RED_CELL[:-3]), "line 4, index 1: .* is not base64"),
        (row(1, answer=""), "line 4, index 1: no `answer`"),
        (row(1, answer="[]"), "line 4, index 1: no `answer`"),
        (row(1, question="<image>?"), "line 4, index 1: the question contains <image>"),
        (row(1, question="<image 2>?"), "line 4, index 1: the question shows image 2 of 1"),
        (row(1, question="<image 0>?"), "line 4, index 1: the question shows image"),
        (row(1, "", image_path="../a.png"), "line 4, index 1: .*leads out of"),
        (row(1, question="<video>?"), "line 4, index 1: found the mark <video> in a turn of the u"),
        (
            row(1, answer="<image 1>"),
            "line 4, index 1: found the mark <image 1> in a turn of the as",
        ),
        (row(1, question="<img>a.png</img>"), "line 4, index 1: found the mark <img>"),
        (row(1, video="a.mp4"), "line 4, index 1: found `video`"),
    ],
)
def test_rows_that_cannot_be_used_name_their_line(tmp_path, damaged, message):
    source = opened(tmp_path, [row(0, question="two\nlines"), damaged, row(2)])
    assert source[2].images == (RED,)
    with pytest.raises(DataError, match=message):
        source[1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0), row(0)], "line 3: index 0 comes twice"),
        ([row(0), row(1, "9")], "line 3: image is '9'; expected base64, or the index"),
        ([row(0, "1"), row(1, "2"), row(2)], "line 2: image is '1'; expected"),
        ([{"question": "what?", "answer": "a"}], "has columns question, answer; expected index"),
    ],
)
def test_tables_that_are_refused(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        opened(tmp_path, rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has columns none"),
        (b"<html>gone</html>", "has columns <html>gone</html>; expected"),
        (b"index\timage\tquestion\tanswer\n0\tabc\twh", "line 2 has 3 cells; expected 4"),
        (b"index\timage\tquestion\tanswer\n0\t\xff\xfe\twh\ta\n", "line 2 cannot be read"),
    ],
)
def test_files_that_are_cut_or_something_else(tmp_path, content, message):
    (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_a_table_that_is_gone_or_changes_after_opening(tmp_path):
    with pytest.raises(DataError, match=r"t\.tsv is not a file"):
        opened(tmp_path)
    source = opened(tmp_path, [row(0), row(1)])
    (tmp_path / "t.tsv").write_text("short")
    with pytest.raises(DataError, match="changed at byte"):
        source[1]

"""Parquet files: layouts of columns, access by row group, and refusals."""

from __future__ import annotations

import pickle
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Turn
from sailvit.data.sources import open_source

TALK = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}]


def opened(folder, path="p.parquet", images=None, **options):
    return open_source(
        "src", SourceConfig(format="parquet", path=path, images=images, options=options), folder
    )


def written(folder, columns, name="p.parquet", rows_per_group=2, **settings):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name, row_group_size=rows_per_group, **settings)
    return folder / name


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image", {"bytes": b"1", "path": "a.png"}),
        ("image", b"1"),
        ("image", [b"1"]),
        ("images", [{"bytes": b"1", "path": None}]),
        ("images", [b"1"]),
    ],
)
def test_layouts_of_the_image_column(tmp_path, column, value):
    written(tmp_path, {column: [value], "conversations": [TALK], "other": [7]})
    record = opened(tmp_path)[0]
    assert (record.id, record.images, record.kind) == ("0", (b"1",), "chat")
    assert record.turns == (Turn("user", "<image>\nwhat?"), Turn("assistant", "a cat"))


@pytest.mark.parametrize("value", [{"bytes": None, "path": "a.png"}, "a.png"])
def test_images_by_path(tmp_path, value):
    written(tmp_path, {"image": [value], "text": ["a cat"]})
    assert opened(tmp_path)[0].images == (tmp_path / "a.png",)
    assert opened(tmp_path, images="photos")[0].images == (tmp_path / "photos/a.png",)


@pytest.mark.parametrize("name", ["caption", "text"])
def test_captions_with_prompts_and_ids(tmp_path, name):
    written(tmp_path, {"id": ["x", "y"], "image": [b"1", b"2"], name: ["a cat", "a dog"]})
    source = opened(tmp_path, prompts=["One?", "Two?"])
    assert [(source[n].id, source[n].turns[0].text, source[n].kind) for n in range(2)] == [
        ("x", "<image>\nOne?", "caption"),
        ("y", "<image>\nTwo?", "caption"),
    ]


def test_messages_in_pieces_and_text_alone(tmp_path):
    pieces = [
        {"type": "image", "text": None},
        {"type": "text", "text": " or "},
        {"type": "image", "text": None},
    ]
    user = {"role": "user", "content": pieces}
    plain = {"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "both"}]}
    written(
        tmp_path, {"images": [[b"1", b"2"], None], "messages": [[user, answer], [plain, answer]]}
    )
    both, alone = opened(tmp_path)[0], opened(tmp_path)[1]
    assert (both.turns[0].text, both.images) == ("<image> or <image>", (b"1", b"2"))
    assert (alone.turns[0].text, alone.images) == ("1 + 1?", ())


def test_rows_of_several_files_and_groups_in_any_order(tmp_path):
    for file in range(3):
        texts = [f"{file}.{row}" for row in range(5)]
        written(tmp_path, {"image": [b"1"] * 5, "text": texts}, f"data/{file}.parquet")
    source = opened(tmp_path, "data")
    expected = [f"{file}.{row}" for file in range(3) for row in range(5)]
    order = [14, 0, 7, 3, 9, 1, 13, 5, 4, 12, 2, 6, 10, 8, 11]
    assert len(source) == 15
    assert [source[n].turns[1].text for n in order] == [expected[n] for n in order]
    assert len(opened(tmp_path, "data/[01].parquet", limit=7)) == 7


def test_as_many_groups_are_kept_as_asked_and_none_travels(tmp_path):
    written(tmp_path, {"image": [b"1"] * 10, "text": list("abcdefghij")})
    source = opened(tmp_path, groups=3)
    for position in (0, 2, 4, 6, 2, 8):
        source[position]
    assert [group for _, group in source._groups._kept] == [3, 1, 4]
    copy = pickle.loads(pickle.dumps(source))
    assert copy._groups._kept == {}
    assert copy[9].turns[1].text == "j"


def test_the_fingerprint_follows_content_and_options(tmp_path):
    def fingerprint(text, **options):
        written(tmp_path, {"image": [b"1"], "text": [text]})
        return opened(tmp_path, **options).fingerprint

    assert fingerprint("a cat") == fingerprint("a cat")
    assert len({fingerprint("a cat"), fingerprint("a rat"), fingerprint("a cat", limit=1)}) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"1"], "text": [None]}, "found image; expected turns"),
        ({"image": [None], "text": ["a"]}, "caption without an image"),
        ({"image": [7], "text": ["a"]}, "found image 7; expected bytes"),
        ({"image": [{"bytes": None, "path": None}], "text": ["a"]}, "expected bytes, a path"),
        ({"image": ["../a.png"], "text": ["a"]}, "leads out of"),
        (
            {"image": [b"1"], "conversations": [[{"from": "dog", "value": "wuff"}]]},
            "expected `from`",
        ),
        ({"conversations": [TALK]}, "1 <image> marks and 0 images"),
    ],
)
def test_rows_that_say_why_they_cannot_be_used(tmp_path, columns, message):
    written(tmp_path, columns)
    source = opened(tmp_path)
    with pytest.raises(DataError, match=message):
        source[0]


def test_a_file_without_text_columns(tmp_path):
    written(tmp_path, {"image": [b"1"], "label": [3]})
    with pytest.raises(
        DataError, match=r"has columns image, label; expected one of caption, .*text"
    ):
        opened(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-20], lambda b: b[:30], lambda b: b"", lambda b: b"<html>" * 9]
)
def test_files_that_are_cut_or_something_else(tmp_path, damage):
    path = written(tmp_path, {"image": [b"1"], "text": ["a"]})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        DataError, match=r"p\.parquet: no readable Parquet file .*no record is left"
    ):
        opened(tmp_path)


def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path):
    for name in "abc":
        written(
            tmp_path,
            {"image": [b"1"] * 3, "text": [f"{name}{n}" for n in range(3)]},
            f"{name}.parquet",
        )
    whole = opened(tmp_path, ".")
    assert (whole.shards, whole.faults) == ((3, 3, 3), ())
    assert whole.place(4) == (str(tmp_path / "b.parquet"), 1)
    (tmp_path / "b.parquet").write_bytes(b"<html>gone</html>")
    source = opened(tmp_path, ".")
    assert [source[n].turns[1].text for n in range(len(source))] == [
        "a0",
        "a1",
        "a2",
        "c0",
        "c1",
        "c2",
    ]
    assert source.shards == (3, 0, 3)
    assert [(fault.shard, fault.kind) for fault in source.faults] == [
        (str(tmp_path / "b.parquet"), "damaged shard")
    ]
    assert source.fingerprint != whole.fingerprint
    assert opened(tmp_path, ".", limit=4).shards == (3, 0, 1)


def test_a_flipped_byte_in_a_page_is_caught_by_its_checksum(tmp_path):
    columns = {"image": [b"1"] * 4, "text": [f"needle{n}" for n in range(4)]}
    path = written(
        tmp_path,
        columns,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    path.write_bytes(path.read_bytes().replace(b"needle3", b"needlf3"))
    source = opened(tmp_path)
    assert source[0].turns[1].text == "needle0"
    with pytest.raises(DataError, match="damaged in row group 1"):
        source[3]


def test_a_missing_library_names_its_command(tmp_path, monkeypatch):
    written(tmp_path, {"image": [b"1"], "text": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"pip install 'sailvit\[parquet\]'"):
        opened(tmp_path)

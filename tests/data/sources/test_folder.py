"""Folders of images: captions beside them or in a table, what is left out, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Turn
from sailvit.data.processing.images import image_size
from sailvit.data.sources import open_source
from sailvit.data.sources.folder import Names

TALK = {
    "conversations": [
        {"from": "human", "value": "<image>\nwhat?"},
        {"from": "gpt", "value": "a cat"},
    ]
}


def put(folder: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def opened(folder, path=".", **options):
    return open_source("src", SourceConfig(format="folder", path=path, options=options), folder)


def test_captions_beside_their_images(tmp_path):
    put(
        tmp_path,
        {
            "b/2.PNG": b"",
            "b/2.caption": b"two",
            "b/10.jpg": b"",
            "b/10.json": TALK | {"id": "ten", "kind": "qa"},
            "a.jpg": b"",
            "a.txt": "é".encode(),
            "c.webp": b"",
            "c.txt": b"from text",
            "c.json": {"width": 3, "caption": None},
            "notes.txt": b"of no image",
            ".hidden/d.jpg": b"",
            ".hidden/d.txt": b"?",
        },
    )
    source = opened(tmp_path)
    records = [source[position] for position in range(len(source))]
    assert [record.id for record in records] == ["a.jpg", "ten", "b/2.PNG", "c.webp"]
    assert [record.turns[1].text for record in records] == ["é", "a cat", "two", "from text"]
    assert [record.kind for record in records] == ["caption", "qa", "caption", "caption"]
    assert records[0].images == (tmp_path / "a.jpg",)
    assert records[0].turns[0] == Turn("user", "<image>\nDescribe the image.")
    assert source.faults == ()
    assert pickle.loads(pickle.dumps(source))[3].id == "c.webp"


def test_what_stands_beside_a_caption_is_listed(tmp_path):
    asked = [{"type": "image", "path": "b.png"}, {"type": "text", "text": "what?"}]
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "a cat"}]
    put(
        tmp_path,
        {
            "a.jpg": b"",
            "a.txt": b"\xef\xbb\xbfone\r\n",
            "a.caption": b"two",
            "b.jpg": b"",
            "b.json": {"caption": "one", "image": "other.png"},
            "c.jpg": b"",
            "c.json": {"messages": turns},
        },
    )
    first, second, third = (opened(tmp_path)[position] for position in range(3))
    assert first.turns[1].text.strip() == "one"
    assert first.unread == (".caption",)
    assert second.unread == ("image",)
    assert third.unread == ("images inside the turns",)
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.jpg", "image": "b.jpg", "text": "x"}'
    )
    record = opened(tmp_path)[0]
    assert (record.images, record.unread) == ((tmp_path / "a.jpg",), ("image",))


def test_images_without_caption_are_counted_or_refused(tmp_path):
    put(tmp_path, {"a.jpg": b"", "b.jpg": b"", "c.jpg": b"", "c.txt": b"three"})
    source = opened(tmp_path)
    assert [source[position].id for position in range(len(source))] == ["c.jpg"]
    [fault] = source.faults
    assert (fault.kind, fault.count) == ("no caption", 2)
    assert "image a.jpg has no caption beside it" in fault.reason
    with pytest.raises(DataError, match=r"image a\.jpg has no caption.*without_caption: drop"):
        opened(tmp_path, without_caption="error")
    (tmp_path / "c.txt").unlink()
    with pytest.raises(DataError, match="no record is left"):
        opened(tmp_path)


def test_a_limit_and_positions_beyond_it(tmp_path):
    put(tmp_path, {f"{n}.{end}": b"x" for n in range(5) for end in ("jpg", "txt")})
    source = opened(tmp_path, limit=2)
    assert len(source) == 2
    with pytest.raises(IndexError):
        source[2]


def test_the_fingerprint_is_that_of_a_copy_and_follows_sizes(tmp_path):
    for name in ("one", "two"):
        put(tmp_path / name, {"a.jpg": b"123", "a.txt": b"cat"})
    os.utime(tmp_path / "two/a.jpg", (1, 1))
    first = opened(tmp_path, "one").fingerprint
    assert opened(tmp_path, "two").fingerprint == first
    put(tmp_path / "two", {"a.txt": b"a cat"})
    assert opened(tmp_path, "two").fingerprint != first
    assert opened(tmp_path, "one", limit=1).fingerprint != first


def test_names_that_are_no_utf8_are_escaped_in_ids(tmp_path):
    Path(tmp_path / "photos").mkdir()
    for ending, content in ((".jpg", b"123"), (".txt", "é".encode())):
        (tmp_path / "photos" / os.fsdecode(b"caf\xe9" + ending.encode())).write_bytes(content)
    record = opened(tmp_path, "photos")[0]
    assert (record.id, record.turns[1].text) == (r"caf\udce9.jpg", "é")
    assert record.images[0].read_bytes() == b"123"


def test_a_broken_link_is_a_bad_record_and_no_end(tmp_path):
    put(tmp_path, {"a.jpg": b"123", "a.txt": b"cat", "b.txt": b"dog"})
    (tmp_path / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    source = opened(tmp_path)
    assert (len(source), source[1].id) == (2, "b.jpg")
    broken = source.fingerprint
    with pytest.raises(DataError, match=r"b\.jpg"):
        image_size(source[1].images[0])
    put(tmp_path, {"gone.jpg": b"1"})
    assert opened(tmp_path).fingerprint != broken


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_a_table_of_captions(tmp_path, table):
    rows = [
        {"file_name": "a.jpg", "text": 'a "cat", asleep'},
        {"file_name": "in/b.jpg", "text": "é\ntwo lines"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    cells = '\ufefffile_name,text\na.jpg,"a ""cat"", asleep"\n\nin/b.jpg,"é\ntwo lines"\n'
    (tmp_path / table).write_bytes((lines if table.endswith("jsonl") else cells).encode())
    source = opened(tmp_path)
    assert [source[position].turns[1].text for position in range(len(source))] == [
        row["text"] for row in rows
    ]
    assert (source[1].id, source[1].images, source[1].kind) == (
        "in/b.jpg",
        (tmp_path / "in/b.jpg",),
        "caption",
    )
    assert len(opened(tmp_path, limit=1)) == 1
    assert opened(tmp_path, limit=1).fingerprint != source.fingerprint
    assert (
        len(
            open_source("src", SourceConfig(format="folder", path=str(tmp_path)), Path("elsewhere"))
        )
        == 2
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jpg": b"", "a.txt": b" "}, r"captions beside .*a\.jpg: found text; expected turns"),
        ({"a.jpg": b"", "a.txt": b"\xff\xfe"}, "its text cannot be read"),
        ({"a.jpg": b"", "a.json": b"{"}, "its text cannot be read"),
        ({"a.jpg": b"", "a.json": b"[1]"}, "its JSON holds list"),
        ({"metadata.jsonl": {"text": "a"}}, "found keys text; expected `file_name`"),
        ({"metadata.jsonl": {"file_name": "../a.jpg", "text": "a"}}, "leads out of"),
        ({"metadata.csv": b"file_name,text\na.jpg,\n"}, "found file_name; expected turns"),
    ],
)
def test_records_that_say_why_they_cannot_be_used(tmp_path, files, message):
    put(tmp_path, files)
    source = opened(tmp_path)
    with pytest.raises(DataError, match=message):
        source[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"name,text\na.jpg,b\n",
            r"line 2 has 2 cells for the columns name, text; expected `file_name`",
        ),
        (b"file_name,text\na.jpg\n", "line 2 has 1 cells"),
        (b"file_name,text\n\xff,\xfe\n", "is no table"),
    ],
)
def test_tables_that_are_refused(tmp_path, content, message):
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_paths_that_are_no_folder(tmp_path):
    for path in (None, "gone"):
        with pytest.raises(DataError, match=f"path {path} is no folder"):
            opened(tmp_path, path)


def test_names_are_kept_as_bytes():
    names = Names(f"folder/{n:07}é\udcff.jpg" for n in range(1000))
    assert (len(names), names[0], names[999]) == (
        1000,
        "folder/0000000é\udcff.jpg",
        "folder/0000999é\udcff.jpg",
    )

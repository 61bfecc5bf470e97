"""WebDataset shards: what a sample is, what is skipped unread, and what refuses a shard or a sample."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile

import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Turn
from sailvit.data.shards.tars import plain_files
from sailvit.data.sources import open_source
from sailvit.data.sources.webdataset import read_sample, sample_in

TALK = {
    "conversations": [
        {"from": "human", "value": "<image>\nwhat?"},
        {"from": "gpt", "value": "a cat"},
    ]
}
JPEG = b"\xff\xd8 not decoded here"


def write_shard(path, members, form=tarfile.PAX_FORMAT):
    """A tar of (name, content) pairs, or of ready TarInfos without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def opened(folder, path="s.tar", **options):
    return open_source("src", SourceConfig(format="webdataset", path=path, options=options), folder)


def special(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def test_captions_and_conversations(tmp_path):
    members = [("a.jpg", JPEG), ("a.txt", b"a c\xc3\xa1t"), ("b.json", TALK), ("b.PNG", b"png")]
    write_shard(tmp_path / "s.tar", members)
    source = opened(tmp_path)
    first, second = source[0], source[1]
    assert len(source) == 2
    assert (first.id, first.images, first.kind) == ("s/a", (JPEG,), "caption")
    assert first.turns == (Turn("user", "<image>\nDescribe the image."), Turn("assistant", "a cát"))
    assert (second.id, second.images, second.kind) == ("s/b", (b"png",), "chat")
    assert second.turns == (Turn("user", "<image>\nwhat?"), Turn("assistant", "a cat"))


def test_json_beside_a_text_gives_what_it_has(tmp_path):
    members = [("a.jpg", JPEG), ("a.txt", b"from txt"), ("a.json", {"caption": None, "width": 3})]
    members += [("b.jpg", JPEG), ("b.txt", b"from txt"), ("b.json", {"caption": "from json"})]
    write_shard(tmp_path / "s.tar", members)
    assert [opened(tmp_path)[n].turns[1].text for n in range(2)] == ["from txt", "from json"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_folders_and_offsets_in_both_tar_forms(tmp_path, form):
    long = "part.one/" + "x" * 200
    folder = special("part.one", tarfile.DIRTYPE)
    members = [
        folder,
        (f"{long}ü.jpg", b"1"),
        (f"{long}ü.txt", b"one"),
        ("./y.jpg", b"2"),
        ("./y.txt", b"two"),
    ]
    write_shard(tmp_path / "s.tar", members, form)
    source = opened(tmp_path)
    assert [(source[n].id, source[n].images) for n in (1, 0)] == [
        ("s/y", (b"2",)),
        (f"s/{long}ü", (b"1",)),
    ]


def test_numbered_images_are_several_of_one_sample(tmp_path):
    talk = {
        "messages": [
            {"role": "user", "content": "<image> or <image>?"},
            {"role": "assistant", "content": "both"},
        ]
    }
    members = [("a.10.jpg", b"ten"), ("a.2.webp", b"two"), ("a.seg.png", b"mask"), ("a.json", talk)]
    write_shard(tmp_path / "s.tar", members)
    assert opened(tmp_path)[0].images == (b"two", b"ten")


class Planted:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_other_members_are_not_read(tmp_path):
    planted = pickle.dumps(Planted())
    members = [
        ("a.pkl", planted),
        ("a.pyd", planted),
        ("a.jpg", JPEG),
        ("a.npy", b"?"),
        ("a.txt", b"a"),
        ("._b", b"?"),
    ]
    write_shard(tmp_path / "s.tar", members)
    record = opened(tmp_path)[0]
    assert (record.id, record.images) == ("s/a", (JPEG,))


def test_shards_follow_each_other_by_name(tmp_path):
    for name in ("b/0.tar", "a/0.tar", "a/1.tar"):
        write_shard(
            tmp_path / name, [(f"{n}.{end}", b"x") for n in range(2) for end in ("jpg", "txt")]
        )
    ids = ["a/0/0", "a/0/1", "a/1/0", "a/1/1", "b/0/0", "b/0/1"]
    whole = opened(tmp_path, ".")
    assert [whole[n].id for n in range(len(whole))] == ids
    assert len(opened(tmp_path, "a/[01].tar")) == 4
    assert len(opened(tmp_path, ".", limit=3)) == 3
    with pytest.raises(IndexError):
        whole[6]
    assert pickle.loads(pickle.dumps(whole))[5].id == "b/0/1"


def test_the_fingerprint_follows_names_and_sizes(tmp_path):
    def fingerprint(*members):
        write_shard(tmp_path / "s.tar", members)
        return opened(tmp_path).fingerprint

    first = fingerprint(("a.jpg", b"1"), ("a.txt", b"one"))
    assert fingerprint(("a.jpg", b"1"), ("a.txt", b"one")) == first
    assert fingerprint(("a.jpg", b"12"), ("a.txt", b"one")) != first
    assert fingerprint(("b.jpg", b"1"), ("b.txt", b"one")) != first


GOOD = [("good.jpg", b"1"), ("good.txt", b"fine")]


@pytest.mark.parametrize(
    ("bad", "kind", "reason"),
    [
        ([special("a.jpg", tarfile.SYMTYPE)], "link", "member 'a.jpg' is a link"),
        ([special("a.jpg", tarfile.LNKTYPE)], "link", "not followed"),
        ([special("a.jpg", tarfile.CHRTYPE)], "device", "has type b'3'"),
        ([special("a.jpg", tarfile.FIFOTYPE)], "device", "has type b'6'"),
        ([("../a.jpg", b"1")], "unsafe name", "member '../a.jpg' leads out of the shard"),
        ([("/etc/a.jpg", b"1")], "unsafe name", "leads out of the shard"),
        ([("good.jpg", b"2")], "duplicate", "member 'good.jpg' comes twice"),
        ([("good.JPG", b"2")], "duplicate", "member 'good.JPG' comes twice"),
        ([("good.pkl", pickle.dumps(Planted()))], "pickle", "never opened"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_members_that_are_left_out(tmp_path, bad, kind, reason, first):
    if kind in ("duplicate", "pickle") and first:
        pytest.skip("the first of two counts, and a sample starts with what it is made of")
    write_shard(tmp_path / "s.tar", bad + GOOD if first else GOOD + bad)
    source = opened(tmp_path)
    assert [source[n].id for n in range(len(source))] == ["s/good"]
    assert (source[0].images, source[0].turns[1].text) == ((b"1",), "fine")
    [fault] = source.faults
    assert (fault.shard, fault.kind, fault.count) == (str(tmp_path / "s.tar"), kind, 1)
    assert fault.offset == (0 if first else 2048)
    assert reason in fault.reason


def test_members_apart_from_their_key_are_left_out(tmp_path):
    members = [
        ("a.jpg", b"1"),
        ("b.jpg", b"2"),
        ("b.txt", b"b"),
        ("a.txt", b"3"),
        ("a.json", {}),
        ("c.jpg", b"4"),
    ]
    write_shard(tmp_path / "s.tar", members)
    source = opened(tmp_path)
    assert len(source) == 3
    assert source[1].turns[1].text == "b"
    [fault] = source.faults
    assert (fault.kind, fault.count, fault.offset) == ("duplicate", 2, 3072)
    with pytest.raises(DataError, match="found nothing; expected turns"):
        source[0]


@pytest.mark.parametrize("cut", [2560, 3000, 3072, 3500, 4000, 4096, 4608])
def test_what_lies_before_a_cut_is_used(tmp_path, cut):
    names = [f"{key}.{end}" for key in "abc" for end in ("jpg", "txt")]
    path = write_shard(tmp_path / "s.tar", [(name, b"x" * 300) for name in names])
    whole = opened(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    source = opened(tmp_path)
    # Six members of 1024 bytes, two per sample; the sample in which the file ends may lack members.
    assert [source[n].id for n in range(len(source))] == ["s/a", "s/b"][: (cut - 1) // 2048]
    [fault] = source.faults
    assert fault.kind == "cut shard"
    assert 0 <= fault.offset <= cut
    assert "without the last one" in fault.reason
    assert source.fingerprint != whole.fingerprint


def test_a_shard_without_end_mark_loses_the_sample_that_may_be_cut(tmp_path):
    path = write_shard(tmp_path / "s.tar", [*GOOD, ("z.jpg", b"1"), ("z.txt", b"may be cut")])
    path.write_bytes(path.read_bytes()[:4096])
    source = opened(tmp_path)
    assert (len(source), source.faults[0].offset) == (1, 4096)


BROKEN = {
    "empty": b"",
    "gzip": b"\x1f\x8b gzip",
    "html": b"<html>gone</html>" * 99,
    "zeros": bytes(100),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_files_that_are_no_tars_cost_only_themselves(tmp_path, content):
    (tmp_path / "0.tar").write_bytes(content)
    with pytest.raises(
        DataError, match=r"0\.tar: cut or damaged at byte 0 .*no record is left"
    ) as refused:
        opened(tmp_path, ".")
    assert refused.value.kind == "cut shard"
    write_shard(tmp_path / "1.tar", GOOD)
    source = opened(tmp_path, ".")
    assert (source.shards, source[0].id) == ((0, 1), "1/good")
    assert [fault.shard for fault in source.faults] == [str(tmp_path / "0.tar")]


def test_a_negative_size_in_a_header_ends_the_shard(tmp_path):
    info = tarfile.TarInfo("b.jpg")
    info.size = -2048
    header = info.tobuf(tarfile.GNU_FORMAT)
    path = write_shard(tmp_path / "s.tar", [*GOOD, ("a.jpg", b"1")])
    path.write_bytes(path.read_bytes()[:3072] + header + bytes(1024))
    source = opened(tmp_path)
    assert len(source) == 1
    assert "damaged at byte 3072" in source.faults[0].reason


def test_shards_and_places_are_known(tmp_path):
    for name, samples in (("0", 3), ("1", 1), ("2", 2)):
        members = [(f"{n}.{end}", b"x") for n in range(samples) for end in ("jpg", "txt")]
        write_shard(tmp_path / f"{name}.tar", members)
    assert opened(tmp_path, ".").shards == (3, 1, 2)
    assert opened(tmp_path, ".", limit=4).shards == (3, 1, 0)
    assert opened(tmp_path, ".").place(5) == (str(tmp_path / "2.tar"), 2048)
    assert opened(tmp_path, ".").faults == ()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:2000]),
            "changed shard",
            "at byte 0: the shard changed",
        ),
        (
            lambda path: os.utime(path, (1, 1)),
            "changed shard",
            "the shard changed since it was opened",
        ),
        (lambda path: path.unlink(), "missing shard", "cannot be read"),
    ],
)
def test_shards_that_change_after_opening(tmp_path, change, kind, message):
    path = write_shard(tmp_path / "s.tar", [("a.txt", b"x"), ("a.jpg", b"x" * 3000)])
    source = opened(tmp_path)
    change(path)
    with pytest.raises(DataError, match=message) as refused:
        source[0]
    assert refused.value.kind == kind


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"1")], "at byte 0: found nothing; expected turns"),
        ([("a.jpg", b"1"), ("a.txt", b" ")], "not blank"),
        ([("a.jpg", b"1"), ("a.txt", b"\xff\xfe")], "its text cannot be read"),
        ([("a.jpg", b"1"), ("a.json", b"{")], "its text cannot be read"),
        ([("a.jpg", b"1"), ("a.json", b"[" * 100_000)], "its text cannot be read"),
        ([("a.jpg", b"1"), ("a.json", [1])], "its JSON holds list"),
        ([("a.json", TALK)], r"record s/a has 1 <image> marks and 0 images"),
        ([("a.txt", b"no image")], "a caption without an image"),
        ([("a.pkl", b"1")], "found nothing"),
    ],
)
def test_samples_that_say_why_they_cannot_be_used(tmp_path, members, message):
    write_shard(tmp_path / "s.tar", [*members, ("good.jpg", b"1"), ("good.txt", b"fine")])
    source = opened(tmp_path)
    assert source[1].turns[1].text == "fine"
    with pytest.raises(DataError, match=message):
        source[0]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "no `path`"),
        ("gone", "holds no .tar file"),
        ("*.tar", "matches no file"),
        (".", "holds no .tar file"),
    ],
)
def test_no_shards(tmp_path, path, message):
    with pytest.raises(DataError, match=message):
        opened(tmp_path, path)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "name", ["a", "folder/a", "./a", "é", "n" * 99 + "/" + "m" * 60, "n" * 120]
)
def test_a_stretch_of_a_tar_gives_the_sample_that_the_tar_gives(form, name):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for ending, content in (
            ("jpg", b"first"),
            ("json", b"{}"),
            ("jpg", b"second"),
            ("other", b"x" * 1500),
        ):
            member = tarfile.TarInfo(f"{name}.{ending}")
            member.size = len(content)
            try:
                tar.addfile(member, io.BytesIO(content))
            except ValueError:
                pytest.skip("this form has no such names")
        stretch = file.getvalue()[: tar.offset]
    assert sample_in(stretch) == read_sample(io.BytesIO(stretch + bytes(1024)), 0)
    assert sample_in(stretch)[1] == {"jpg": b"first", "json": b"{}"}


@pytest.mark.parametrize(
    ("at", "changed"),
    [
        (156, b"2"),
        (156, b"5"),
        (0, b"/"),
        (0, b"../"),
        (124, b"\x80"),
        (124, b"x"),
        (345, b"p"),
        (257, b"other"),
    ],
)
def test_a_stretch_with_an_odd_header_is_left_to_tarfile(at, changed):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    content = bytearray(file.getvalue()[:512])
    content[at : at + len(changed)] = changed
    assert plain_files(bytes(content)) is None


def test_keys_with_more_dots_never_become_one_sample(tmp_path):
    names = [f"scan_{n}.v1.{minor}" for n in range(2) for minor in (5, 6)]
    members = [(f"{name}.{end}", b"x") for name in names for end in ("png", "txt")]
    write_shard(tmp_path / "s.tar", members)
    with pytest.raises(DataError, match=r"\.v1\.5\.png, \.v1\.5\.txt, \.v1\.6\.png") as refused:
        opened(tmp_path)
    assert "first dot" in str(refused.value)
    write_shard(tmp_path / "s.tar", [*GOOD, *members])
    source = opened(tmp_path)
    assert [source[n].id for n in range(len(source))] == ["s/good"]
    assert [(fault.kind, fault.count) for fault in source.faults] == [("endings", 4)]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["a.jpg", "a.jpeg", "a.txt"], r"\.jpg and \.jpeg both may be its image"),
        (["a.png", "a.JPG", "a.txt"], r"\.png and \.jpg both .*end in \.png, \.jpg, \.txt"),
        (["a.0.png", "a.jpg", "a.txt"], "both may be its image"),
        (
            ["a.left.png", "a.right.png", "a.txt"],
            r"without an image.*\.txt, \.left\.png, \.right\.png",
        ),
        (["a.jpg", "a.cls"], r"expected turns.*end in \.jpg, \.cls$"),
    ],
)
def test_a_sample_that_cannot_be_told_names_its_endings(tmp_path, members, message):
    write_shard(tmp_path / "s.tar", [*((name, b"x") for name in members), *GOOD])
    with pytest.raises(DataError, match=message):
        opened(tmp_path)[0]


def test_members_that_are_not_read_are_told(tmp_path):
    json_file = {"caption": "from json", "key": "000", "status": "success"}
    members = [("a.seg.png", b"m"), ("a.jpg", b"1"), ("a.cls", b"3"), ("a.json", json_file)]
    write_shard(tmp_path / "s.tar", [*members, ("a.txt", b"another caption")])
    record = opened(tmp_path)[0]
    assert (record.images, record.turns[1].text) == ((b"1",), "from json")
    assert record.unread == ("key", "status", ".txt", ".seg.png", ".cls")

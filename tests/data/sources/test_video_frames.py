"""Videos as frames: which are picked, where their marks go, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Turn
from sailvit.data.sources import open_source
from sailvit.data.sources.video_frames import pick

ANSWER = {"from": "gpt", "value": "it falls"}


def talk(text):
    return [{"from": "human", "value": text}, ANSWER]


def read(folder: Path, row: object, **options: object):
    (folder / "data.jsonl").write_text(json.dumps(row) + "\n")
    return open_source(
        "src", SourceConfig(format="video_frames", path="data.jsonl", options=options), folder
    )[0]


def clip(folder: Path, count: int) -> None:
    (folder / "clip").mkdir()
    for number in range(count):
        Image.new("RGB", (4, 4)).save(folder / f"clip/frame_{number}.png")
    (folder / "clip/sound.wav").write_bytes(b"")


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (3, 8, [0, 1, 2]),
        (8, 8, list(range(8))),
        (16, 8, [1, 3, 5, 7, 9, 11, 13, 15]),
        (100, 4, [12, 37, 62, 87]),
        (7, 1, [3]),
        (0, 4, []),
    ],
)
def test_frames_are_picked_evenly_and_in_order(count, most, expected):
    assert pick(count, most) == expected


def test_a_folder_is_a_video_in_the_order_of_its_numbers(tmp_path):
    clip(tmp_path, 12)
    record = read(
        tmp_path,
        {"id": 3, "video": "clip", "caption": "it falls"},
        frames=12,
        prompts=["What happens?"],
    )
    assert [path.stem for path in record.images] == [f"frame_{number}" for number in range(12)]
    assert record.turns == (
        Turn("user", "<image>\n" * 12 + "What happens?"),
        Turn("assistant", "it falls"),
    )
    assert (record.id, record.kind) == ("3", "video")
    assert [
        path.stem for path in read(tmp_path, {"video": "clip", "text": "a"}, frames=3).images
    ] == [
        "frame_2",
        "frame_6",
        "frame_10",
    ]


@pytest.mark.parametrize("question", ["<video>\nwhat?", "<image>\nwhat?"])
def test_one_mark_stands_for_all_frames(tmp_path, question):
    record = read(tmp_path, {"frames": ["a.jpg", "b.jpg"], "conversations": talk(question)})
    assert record.turns[0].text == "<image>\n<image>\nwhat?"
    assert record.images == (tmp_path / "a.jpg", tmp_path / "b.jpg")


def test_a_mark_per_frame_keeps_every_frame(tmp_path):
    record = read(
        tmp_path,
        {"frames": list("abc"), "conversations": talk("<image>, <image> or <image>?")},
        frames=2,
    )
    assert record.turns[0].text == "<image>, <image> or <image>?"
    assert len(record.images) == 3


def test_labels_tell_number_and_time(tmp_path):
    row = {"frames": [f"{n}.jpg" for n in range(8)], "text": "it falls", "fps": 2}
    record = read(tmp_path, row, frames=2, label="Frame {number} at {seconds} s: ")
    assert record.turns[0].text.startswith(
        "Frame 1 at 1.0 s: <image>\nFrame 2 at 3.0 s: <image>\nDescribe"
    )
    del row["fps"]
    assert "at 0.5 s" in read(tmp_path, row, frames=2, label="at {seconds} s", fps=4).turns[0].text
    with pytest.raises(DataError, match="no rate is known; set `fps`"):
        read(tmp_path, row, label="{seconds}")


def test_a_missing_mark_is_refused_or_put_first(tmp_path):
    row = {"frames": ["a.jpg", "b.jpg"], "conversations": talk("what?")}
    with pytest.raises(DataError, match=r"record 0 has 0 marks for one video.*mark: prepend"):
        read(tmp_path, row)
    assert read(tmp_path, row, mark="prepend").turns[0].text == "<image>\n<image>\nwhat?"


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"frames": ["a", "b"], "conversations": talk("<video> <video>")}, "marks", "has 2 marks"),
        (
            {"frames": ["a", "b", "c"], "conversations": talk("<image> <image>")},
            "marks",
            "has 2 marks",
        ),
        ({"frames": ["../a"], "text": "a"}, "record", "leads out of"),
        ({"video": "../clip", "text": "a"}, "record", "leads out of"),
        ({"video": "gone", "text": "a"}, "missing file", "gone holds no images"),
        (
            {"video": "data.jsonl", "text": "a"},
            "image",
            "is a file; expected a folder of frames.*ffmpeg",
        ),
        ({"video": 3, "text": "a"}, "image", "expected `frames`"),
        ({"frames": [], "text": "a"}, "image", "expected `frames`"),
        ({"frames": ["a"], "text": " "}, "text", "not blank"),
        ({"frames": ["a"]}, "text", "expected turns"),
    ],
)
def test_rows_that_are_no_videos_say_why(tmp_path, row, kind, message):
    with pytest.raises(DataError, match=message) as refused:
        read(tmp_path, row)
    assert kind in (refused.value.kind, "record")

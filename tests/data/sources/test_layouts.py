"""Rows of public layouts, each with the record it becomes or the refusal that names its key."""

from __future__ import annotations

import json
import re
from base64 import b64encode

import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Turn
from sailvit.data.rows.columns import column_record
from sailvit.data.rows.conversations import RecordOptions
from sailvit.data.rows.keys import unread_line
from sailvit.data.sources import open_source
from sailvit.dataprep.prepare.checking import check

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
DATA = "data:image/png;base64," + b64encode(PNG).decode()
SHOWN = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}]
PLAIN = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a cat"}]
ASKED = (Turn("user", "what?"), Turn("assistant", "a cat"))
SEEN = (Turn("user", "<image>\nwhat?"), Turn("assistant", "a cat"))
AGAIN = (Turn("user", "sure?"), Turn("assistant", "yes"))
SHOWN_ONLY = Turn("assistant", "a cat", learnt=False)
SYSTEM = Turn("system", "be brief")


def opened(folder, *rows, **options):
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = SourceConfig(format="llava", path="data.jsonl", options=options)
    return open_source("src", config, folder)


def talk(*contents, **settings):
    """Messages of user and assistant in turn; `settings` go into the last one."""
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": said} for n, said in enumerate(contents)]
    return [*turns[:-1], {**turns[-1], **settings}]


def pieces(*given, text="\nwhat?"):
    return {"messages": talk([*given, {"type": "text", "text": text}], "a cat")}


HONOURED = {
    # The layouts as they are, with keys that are nobody's business.
    "llava": ({"id": "7", "image": "a.png", "model": "", "conversations": SHOWN}, SEEN),
    "sharegpt": ({"system": "be brief", "conversations": SHOWN, "image": "a.png"}, (SYSTEM, *SEEN)),
    "sharegpt without tools": ({"tools": "[]", "image": "a.png", "conversations": SHOWN}, SEEN),
    "internvl": ({"image": ["a.png"], "width_list": [3], "conversations": SHOWN}, SEEN),
    "ms-swift": (
        {"system": "be brief", "conversation": [{"human": "what?", "assistant": "a cat"}]},
        (SYSTEM, *ASKED),
    ),
    "ms-swift empty lists": ({"messages": PLAIN, "videos": [], "audios": None}, ASKED),
    "query": ({"query": "what?", "response": "a cat", "system": "be brief"}, (SYSTEM, *ASKED)),
    "query with history": (
        {"query": "sure?", "response": "yes", "history": [["what?", "a cat"]]},
        (*ASKED, *AGAIN),
    ),
    "alpaca": ({"instruction": "what?", "input": "", "output": "a cat"}, ASKED),
    "alpaca with input": (
        {"instruction": "<image>", "input": "what?", "output": "a cat", "images": ["a.png"]},
        SEEN,
    ),
    "prompt and completion": (
        {"prompt": PLAIN + talk("sure?"), "completion": [{"role": "assistant", "content": "yes"}]},
        (
            ASKED[0],
            SHOWN_ONLY,
            *AGAIN,
        ),
    ),
    "the cauldron": (
        {
            "images": ["a.png"],
            "texts": [{"user": "what?", "assistant": "a cat", "source": "s"}],
            "relevance_ratings": [5],
        },
        SEEN,
    ),
    "qwen-vl": (
        {"conversations": talk("Picture 1: <img>a.png</img>\nwhat?", "a cat")},
        (Turn("user", "Picture 1: <image>\nwhat?"), SEEN[1]),
    ),
    "developer": (
        {"messages": [{"role": "developer", "content": "be brief"}, *PLAIN]},
        (SYSTEM, *ASKED),
    ),
    "system_prompt": ({"system_prompt": "be brief", "messages": PLAIN}, (SYSTEM, *ASKED)),
    "the same system twice": (
        {"system": "be brief", "messages": [{"role": "system", "content": "be brief"}, *PLAIN]},
        (SYSTEM, *ASKED),
    ),
    # Which answers are learnt.
    "openai weight": (
        {"messages": talk("what?", "a cat", weight=0) + talk("sure?", "yes", weight=1)},
        (ASKED[0], SHOWN_ONLY, *AGAIN),
    ),
    "ms-swift loss": (
        {"messages": talk("what?", "a cat", loss=False) + talk("sure?", "yes", loss=True)},
        (ASKED[0], SHOWN_ONLY, *AGAIN),
    ),
    "axolotl train": (
        {"messages": talk("what?", "a cat", train=False) + talk("sure?", "yes")},
        (ASKED[0], SHOWN_ONLY, *AGAIN),
    ),
    "slimorca": (
        {
            "conversations": [
                {"from": "human", "value": "what?", "weight": 0.0},
                {"from": "gpt", "value": "a cat", "weight": 1.0},
            ]
        },
        ASKED,
    ),
    "reasoning": (
        {"messages": talk("what?", "a cat", reasoning_content="whiskers")},
        (ASKED[0], Turn("assistant", "a cat", reasoning="whiskers")),
    ),
    # Images inside turns.
    "openai path": (pieces({"type": "image_url", "image_url": {"url": "a.png"}}), SEEN),
    "openai string": (pieces({"type": "image_url", "image_url": "a.png"}), SEEN),
    "openai detail": (
        pieces({"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}}),
        SEEN,
    ),
    "responses": (
        {
            "messages": talk(
                [
                    {"type": "input_image", "image_url": "a.png"},
                    {"type": "input_text", "text": "\nwhat?"},
                ],
                [{"type": "output_text", "text": "a cat"}],
            )
        },
        SEEN,
    ),
    "image": (pieces({"type": "image", "image": "a.png"}), SEEN),
    "image url": (pieces({"type": "image", "url": "a.png"}), SEEN),
    "image path": (pieces({"type": "image", "path": "a.png"}), SEEN),
    "image without type": (pieces({"image": "a.png"}), SEEN),
    "conversations": (
        {"conversations": pieces({"type": "image", "path": "a.png"})["messages"]},
        SEEN,
    ),
    "conversation": (
        {"conversation": pieces({"type": "image", "image": "a.png"})["messages"]},
        SEEN,
    ),
    "image of the row": (
        {"images": ["a.png"], **pieces({"type": "image", "index": 0, "text": None})},
        SEEN,
    ),
    # Text that only looks like marks.
    "html": (
        {"messages": talk("close <video> by </video>?", "yes")},
        (Turn("user", "close <video> by </video>?"), Turn("assistant", "yes")),
    ),
}


@pytest.mark.parametrize("name", HONOURED)
def test_what_layouts_define_is_honoured(tmp_path, name):
    row, turns = HONOURED[name]
    record = opened(tmp_path, row)[0]
    assert record.turns == turns
    assert record.images == (tmp_path / "a.png",) * sum("<image>" in t.text for t in turns)


REFUSED = {
    "videos": ({"messages": PLAIN, "videos": ["a.mp4"]}, "found `videos`.*format `video_frames`"),
    "video": ({"conversations": SHOWN, "video": "a.mp4"}, "found `video`"),
    "audios": ({"messages": PLAIN, "audios": ["a.wav"]}, "found `audios`"),
    "tools": ({"messages": PLAIN, "tools": '[{"name": "f"}]'}, "found `tools`"),
    "rejected": ({"messages": PLAIN, "rejected_response": "a dog"}, "found `rejected_response`"),
    "chosen": (
        {"conversations": SHOWN[:1], "chosen": {}, "rejected": {"value": "b"}},
        "`rejected`",
    ),
    "kto": ({"messages": PLAIN, "label": False}, "found `label`"),
    "kto tag": ({"messages": PLAIN, "kto_tag": True}, "found `kto_tag`"),
    "objects": (
        {
            "messages": talk("<image>find the <ref-object>", "<bbox>"),
            "images": ["a.png"],
            "objects": {"ref": ["cat"], "bbox": [[1, 2, 3, 4]]},
        },
        "mark <ref-object>",
    ),
    "bbox": ({"messages": talk("where?", "<bbox>")}, "mark <bbox> in a turn of the assistant"),
    "video mark": ({"messages": talk("<video>what?", "a cat")}, "mark <video>"),
    "audio mark": ({"messages": talk("<audio>what?", "a cat")}, "mark <audio>"),
    "qwen marks": (
        {"messages": talk("<|vision_start|><|image_pad|><|vision_end|>what?", "a cat")},
        r"mark <\|vision_start\|>",
    ),
    **{
        mark: (
            {"messages": talk(f"<image>{mark} what?", "a cat"), "image": "a.png"},
            re.escape(mark),
        )
        for mark in (
            *("<|image_1|>", "<|image|>", "<|audio_1|>", "<start_of_image>", "<image_soft_token>"),
            *("<image_placeholder>", "<ImageHere>", "<Image>", "<IMAGE>"),
        )
    },
    "turns as text": ({"conversations": json.dumps(SHOWN)}, "`conversations` '.*JSON as text"),
    "minicpm": (
        {"messages": talk("(<image>./</image>) what?", "a cat"), "image": "a.png"},
        "mark <image>./</image>",
    ),
    "numbered": ({"messages": talk("<image 1> what?", "a cat"), "images": ["a.png"]}, "<image 1>"),
    "two systems": (
        {"system": "be long", "messages": [{"role": "system", "content": "be brief"}, *PLAIN]},
        "system turn and another text",
    ),
    "two spellings": ({"system": "a", "system_prompt": "b", "messages": PLAIN}, "one system text"),
    "a share of the loss": (
        {"messages": talk("what?", "a cat", weight=0.5)},
        "'weight': 0.5.*0 or 1",
    ),
    "words": ({"messages": talk("what?", "a cat", train="no")}, "'train': 'no'"),
    "contrary flags": (
        {"messages": talk("what?", "a cat", train=True, weight=0)},
        "expected 0 or 1",
    ),
    "user learnt": (
        {"messages": [{**PLAIN[0], "train": True}, PLAIN[1]]},
        "turn of the user; only answers",
    ),
    "train_detail": (
        {"messages": talk("what?", "a cat", train_detail=[{"train": 1}])},
        "train_detail",
    ),
    "tool_calls": (
        {"messages": talk("what?", None, tool_calls=[{"id": "1"}])},
        "found `tool_calls`",
    ),
    "tool turn": ({"messages": [*PLAIN, {"role": "tool", "content": "1"}]}, "turn of 'tool'"),
    "observation": (
        {"conversations": [*SHOWN, {"from": "observation", "value": "1"}], "image": "a.png"},
        "turn of 'observation'",
    ),
    "images in a turn": (
        {"messages": [{**PLAIN[0], "images": ["a.png"]}, PLAIN[1]]},
        "found `images`",
    ),
    "user reasons": (
        {"messages": [{**PLAIN[0], "reasoning_content": "hm"}, PLAIN[1]]},
        "`reasoning_content`.*of the user",
    ),
    "audio piece": (pieces({"type": "input_audio", "input_audio": {"data": "x"}}), "input_audio"),
    "video piece": (pieces({"type": "video", "video": "a.mp4"}), "pieces of type text or image"),
    "file_id": (pieces({"type": "input_image", "file_id": "file-1"}), "`file_id`.*download it"),
    "url": (
        pieces({"type": "image_url", "image_url": {"url": "https://h/a.png"}}),
        "is a URL.*download",
    ),
    "URL": (pieces({"type": "image", "url": "HTTPS://h/a.png"}), "is a URL"),
    "index": (
        {
            "images": ["a.png", "b.png"],
            "messages": talk([{"type": "image", "index": 1}, {"type": "image", "index": 0}], "a"),
        },
        "`index` 1 as number 0",
    ),
    "images twice": (
        {"images": ["b.png"], **pieces({"type": "image", "path": "a.png"})},
        "more than one place",
    ),
    "image and images": (
        {"image": "a.png", "images": ["b.png"], "conversations": SHOWN},
        "more than one",
    ),
    "history": ({"query": "a", "response": "b", "history": ["c"]}, "found `history`"),
    "history as a number": (
        {"query": "a", "response": "b", "history": 3},
        "found `history` 3; expected a list of pairs",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, name):
    row, message = REFUSED[name]
    with pytest.raises(DataError, match=message) as refused:
        opened(tmp_path, row)[0]
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "address",
    [
        DATA,
        b64encode(PNG).decode(),
        b64encode(PNG).decode()[:40] + "\n" + b64encode(PNG).decode()[40:],
    ],
)
@pytest.mark.parametrize("container", ["messages", "conversations", "conversation"])
def test_images_may_be_encoded_inside_turns(tmp_path, address, container):
    for piece in (
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "image", "url": address},
        {"type": "image", "base64": address},
        {"type": "image", "source": {"type": "base64", "data": address}},
    ):
        record = opened(tmp_path, {container: pieces(piece)["messages"]})[0]
        assert (record.turns, record.images) == (SEEN, (PNG,))


def test_absolute_paths_and_file_uris_are_taken_inside_the_folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "set")
    inside, linked = tmp_path / "set/a b.png", tmp_path / "link/a b.png"
    uris = [f"file://{inside}", f"file://localhost{inside}", f"file://{tmp_path}/set/a%20b.png"]
    for name in (str(inside), str(linked), *uris):
        record = opened(tmp_path / "set", {"image": name, "conversations": SHOWN})[0]
        assert record.images == (inside,)
    outside = tmp_path / "b.png"
    for name in (str(outside), f"file://{tmp_path}/set/../b.png", "file:///etc/passwd"):
        with pytest.raises(DataError, match=r"leads out of .*let `images` name"):
            opened(tmp_path / "set", {"image": name, "conversations": SHOWN})[0]
    with pytest.raises(DataError, match="on another machine"):
        opened(tmp_path, {"image": "file://host/a.png", "conversations": SHOWN})[0]


@pytest.mark.parametrize("text", ["A" * 5000 + "!", "data:image/png," + "A" * 5000, "x" * 300])
def test_a_long_text_for_an_image_is_explained_in_a_line(tmp_path, text):
    with pytest.raises(DataError) as refused:
        opened(tmp_path, {"image": text, "conversations": SHOWN})[0]
    assert refused.value.kind in ("image", "base64")
    assert len(str(refused.value)) < 250
    assert "\n" not in str(refused.value)


def test_other_keys_are_listed_once_with_the_number_of_records(tmp_path):
    detail = {"url": "a.png", "detail": "low"}
    rows = [
        {"id": "1", "messages": PLAIN, "score": 0.5, "source": "s", "objects": {"bbox": [[1, 2]]}},
        {"id": "2", "messages": PLAIN, "score": 0, "source": "", "note": [None], "objects": {}},
        {"messages": talk("what?", "<ref>cat</ref><box>(1,2)</box>", name="bot")},
        pieces({"type": "image_url", "image_url": detail}),
        {"images": [{"path": "a.png", "bytes": None, "box": [1, 2]}], "conversations": SHOWN},
    ]
    source = opened(tmp_path, *rows)
    assert [source[n].unread for n in range(5)] == [
        ("score", "source", "objects"),
        ("score",),
        ("messages[].name", "<ref>", "<box>"),
        ("messages[].content[].image_url.detail",),
        ("images[].box",),
    ]
    report = check({"src": source})
    assert report.unread["src"]["score"] == 2
    line = unread_line("src", {"score": 200, "foo": 3, "<box>": 1})
    assert line == (
        "source src: keys not read: `score` (200), `foo` (3); learnt as plain text: <box> (1);"
        " in brackets the records that hold them"
    )


def test_columns_carry_the_same_meaning(tmp_path):
    def read(row, **settings):
        return column_record(row, RecordOptions(), folder=tmp_path, position=0, **settings)

    row = {"image": b"1", "text": "a cat", "system": "be brief", "label": 3, "videos": None}
    record = read(row, left=("embedding",))
    assert [turn.role for turn in record.turns] == ["system", "user", "assistant"]
    assert record.unread == ("label", "embedding")
    with pytest.raises(DataError, match="found `videos`"):
        read({**row, "videos": ["a.mp4"]})
    weighted = [
        {"role": "user", "content": "a", "weight": None},
        {"role": "assistant", "content": "b", "weight": 0},
    ]
    assert not read({"messages": weighted}).turns[1].learnt

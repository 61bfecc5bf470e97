"""Chat messages become the record whose prompt is token for token what training used."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_tokenizers import TEMPLATES, byte_tokenizer, layout_for

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record, Turn
from sailvit.data.processing.images import load_image
from sailvit.data.processing.processor import Processor
from sailvit.data.sources import open_source
from sailvit.inference.conversation import conversation, question
from sailvit.inference.processor import ChatProcessor, conversations
from tiny_parts import picture


def png(seed: int = 1) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, format="PNG")
    return file.getvalue()


def uri(seed: int = 1) -> str:
    return "data:image/png;base64," + base64.b64encode(png(seed)).decode()


def asked(*pieces: object) -> list[dict]:
    return [{"role": "user", "content": list(pieces)}]


TEXT = {"type": "text", "text": "what colour?"}


@pytest.mark.parametrize(
    "piece",
    [
        {"type": "image_url", "image_url": {"url": uri()}},
        {"type": "image_url", "image_url": uri()},
        {"type": "input_image", "image_url": uri()},
        {"type": "image", "image": Image.fromarray(picture(1))},
        {"type": "image", "image": picture(1)},
        {"type": "image", "image": png()},
    ],
)
def test_pieces_of_every_layout_give_the_question_with_its_image(piece: dict):
    found = conversation(asked(piece, TEXT))
    assert found.turns == (Turn("user", "<image>\nwhat colour?"),)
    assert np.array_equal(load_image(found.images[0]), picture(1))


def test_an_image_is_also_a_path_a_uri_of_a_file_or_beside_the_messages(tmp_path: Path):
    (tmp_path / "a b.png").write_bytes(png())
    place = {"type": "image"}
    for piece, beside in (
        ({"type": "image", "path": str(tmp_path / "a b.png")}, ()),
        ({"type": "image", "url": f"file://{tmp_path}/a%20b.png"}, ()),
        (place, (tmp_path / "a b.png",)),
    ):
        found = conversation(asked(piece, TEXT), beside)
        assert np.array_equal(load_image(found.images[0]), picture(1))


def test_images_keep_the_order_of_their_places():
    first, second = ({"type": "image", "image": picture(n)} for n in (1, 2))
    found = conversation(asked(first, second, TEXT))
    assert found.turns[0].text == "<image>\n<image>\nwhat colour?"
    between = asked(
        {"type": "text", "text": "is "}, second, {"type": "text", "text": " or "}, first
    )
    found = conversation(between)
    assert found.turns[0].text == "is <image> or <image>"
    assert [load_image(image).tolist() for image in found.images] == [
        picture(2).tolist(),
        picture(1).tolist(),
    ]


def test_history_and_system_are_turns():
    told = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "image", "image": picture(1)}, TEXT]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
        {"role": "user", "content": "and left?"},
    ]
    found = conversation(told)
    assert [turn.role for turn in found.turns] == ["system", "user", "assistant", "user"]
    assert len(found.images) == 1


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "expected a list of messages"),
        ("hello", "expected a list of messages"),
        ({"role": "user", "content": "a"}, "expected a list of messages"),
        (["hello"], "expected `role`"),
        ([{"role": "user"}], "expected `role`, and `content`"),
        ([{"role": "user", "content": None}], "expected `role`, and `content`"),
        ([{"role": "tool", "content": "a"}], "role 'tool'"),
        ([{"content": "a"}], "role None"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "assistant's"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}], "tool_calls"),
        (asked({"type": "input_audio", "input_audio": {"data": "a"}}), "text or image"),
        (asked({"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}, TEXT), "a URL"),
        (asked({"type": "image_url", "image_url": {"url": "data:,a"}}, TEXT), "without base64"),
        (asked({"type": "image"}, TEXT), "1 places of images .* and 0 images"),
        ([{"role": "user", "content": "what does <image> mean?"}], "cannot hold the word <image>"),
    ],
)
def test_what_is_no_conversation_is_refused_in_a_sentence(messages: object, said: str):
    with pytest.raises(DataError, match=said):
        conversation(messages)  # type: ignore[arg-type]


def test_images_of_several_conversations_are_a_list_each():
    one = asked({"type": "image"}, TEXT)
    found = conversations([one, asked(TEXT)], [[picture(1)], []])
    assert [len(record.images) for record in found] == [1, 0]
    with pytest.raises(DataError, match="1 lists of images for 2"):
        conversations([one, one], [[picture(1)]])
    with pytest.raises(DataError, match="all of them in one place"):
        conversation(asked({"type": "image", "image": picture(1)}, TEXT), [picture(2)])


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_prompts_are_the_tokens_that_training_used(template: str, tmp_path: Path):
    """A row of OpenAI's layout is trained on; the same messages without its answer are asked."""
    tokenizer = byte_tokenizer(TEMPLATES[template])
    processor = Processor(tokenizer, layout_for(tokenizer, max_tiles=4), 500)
    (tmp_path / "a.png").write_bytes(png())
    pieces = [{"type": "image_url", "image_url": {"url": "a.png"}}, TEXT]
    messages = [
        {"role": "user", "content": pieces},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "and left of it?"},
    ]
    row = {"messages": [*messages, {"role": "assistant", "content": "blue"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    source = open_source("rows", SourceConfig(format="llava", path="rows.jsonl"), tmp_path)
    sample = processor("rows", source[0])
    pieces[0] = {"type": "image", "image": tmp_path / "a.png"}
    inputs = ChatProcessor(processor)(messages)
    prompt = inputs["input_ids"][0]
    assert torch.equal(prompt, sample.tokens[: len(prompt)])
    assert torch.equal(inputs["pixel_values"], sample.tiles)
    # Where a template opens an answer by itself, that opening is learnt and so generated.
    assert int((sample.labels >= 0).nonzero()[-1]) >= len(prompt) - 1


def test_a_batch_is_padded_on_the_left_and_text_is_what_was_tokenized():
    tokenizer = byte_tokenizer(TEMPLATES["chatml"])
    processor = ChatProcessor(Processor(tokenizer, layout_for(tokenizer), 500))
    short, long = asked(TEXT), asked({"type": "image", "image": picture(1)}, TEXT)
    inputs = processor([short, long])
    lengths = inputs["attention_mask"].sum(dim=1)
    assert inputs["attention_mask"][:, -1].all()
    for row, length, messages in zip(inputs["input_ids"], lengths, (short, long), strict=True):
        assert torch.equal(row[-length:], processor(messages)["input_ids"][0])
    text = processor.apply_chat_template(long, tokenize=False)
    assert text.count("<|image_pad|>") == 1
    assert text.endswith("<|im_start|>assistant\n")
    assert processor.apply_chat_template([short, long], tokenize=False)[1] == text
    assert torch.equal(
        processor.apply_chat_template(short)["input_ids"][0], inputs["input_ids"][0][-lengths[0] :]
    )
    assert processor.batch_decode(tokenizer(["what is red?", "blue"]).input_ids) == [
        "what is red?",
        "blue",
    ]


def test_a_question_without_marks_has_its_images_first():
    found = question([picture(1), picture(2)], "which?", system="be brief")
    assert found == Record(
        "question",
        (Turn("system", "be brief"), Turn("user", "<image>\n<image>\nwhich?")),
        found.images,
    )

"""A dialogue remembers what was said and shown, and nothing of what failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from transformers import LogitsProcessor

from sailvit.core.errors import DataError
from sailvit.inference.dialogue import Dialogue, printable
from sailvit.inference.model import RunModel
from tiny_parts import Parts, picture


@pytest.fixture(scope="module")
def model(parts: Parts) -> RunModel:
    return RunModel(parts.build())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(picture(1, 60, 40)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_the_second_question_sees_the_first_and_its_image(model, image):
    talk = Dialogue(model, system="be brief", max_new_tokens=4)
    assert talk.attach(image) == (60, 40)
    first = "".join(talk.ask("what colour?"))
    assert talk.images == []
    computed = model.generation.visual_tokens.computed
    second = "".join(talk.ask("and left?"))
    assert model.generation.visual_tokens.computed == computed
    roles = [message["role"] for message in talk.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert [talk.messages[at]["content"] for at in (2, 4)] == [first, second]
    assert second == model.chat(talk.messages[:4], max_new_tokens=4)
    talk.clear()
    assert [message["role"] for message in talk.messages] == ["system"]


def test_what_fails_is_as_if_never_asked_and_an_ended_answer_counts(model, image, tmp_path):
    talk = Dialogue(model, max_new_tokens=4000)
    with pytest.raises(DataError, match=r"b\.png"):
        talk.attach(tmp_path / "b.png")
    talk.attach(image)
    image.write_bytes(b"damaged now")
    with pytest.raises(DataError, match=r"a\.png"):
        list(talk.ask("what?"))
    assert (talk.messages, talk.images) == ([], [image])
    talk.clear()
    a = model.bundle.tokenizer("a").input_ids[0]

    class Always(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores.fill_(-9.0).index_fill_(1, scores.new_tensor([a]).long(), 9.0)

    endless = Dialogue(model, max_new_tokens=4000, options={"logits_processor": [Always()]})
    stream = endless.ask("what?")
    assert next(stream) == "a"
    stream.close()
    assert endless.messages[-1] == {"role": "assistant", "content": "a"}


def test_answers_cannot_steer_a_terminal():
    assert printable("a\x1b[2J\n\tb\x07\x9b1m\u00e9") == "a[2J\n\tb1m\u00e9"

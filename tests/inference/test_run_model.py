"""A batch of conversations with images gives what each gives alone, for several kinds of languages."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from family_models import bundle_of
from PIL import Image
from transformers import LogitsProcessor, TextIteratorStreamer

from sailvit.core.errors import DataError
from sailvit.core.recipe import ImageConfig, ModelConfig
from sailvit.inference.conversation import conversation
from sailvit.inference.model import RunModel
from sailvit.models.loading.build import build
from tiny_parts import Parts, picture

LONGEST = 10
TEXT = {"type": "text", "text": "what colour is it?"}


def image(seed: int, width: int = 32, height: int = 32) -> dict[str, Any]:
    return {"type": "image", "image": picture(seed, width, height)}


def asked(*pieces: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(pieces)}]


CONVERSATIONS = [
    asked(image(1), TEXT),
    asked({"type": "text", "text": "what is red?"}),
    asked(image(2, 70, 30), image(1), {"type": "text", "text": "which is the larger one of them?"}),
    [
        *asked(image(3, 40, 90), TEXT),
        {"role": "assistant", "content": "blue"},
        *asked({"type": "text", "text": "and is it left of"}, image(1)),
    ],
    asked(TEXT),
]


@pytest.fixture(scope="module")
def model(parts: Parts) -> RunModel:
    return RunModel(parts.build(image=ImageConfig(max_tiles=4)))


@pytest.mark.parametrize(
    "family",
    ["llama", "qwen3", "gemma2", "gemma3_text", "lfm2", "qwen3_5_text", "mamba2", "gpt2"],
)
def test_a_batch_gives_what_each_conversation_gives_alone(parts: Parts, family: str):
    tiled = ImageConfig(max_tiles=4) if family == "llama" else ImageConfig()
    model = RunModel(bundle_of(parts, family, image=tiled))
    ids = together(model, CONVERSATIONS, batch=8)
    assert ids == [together(model, [each], batch=1)[0] for each in CONVERSATIONS]
    assert ids == together(model, CONVERSATIONS, batch=2)
    assert len({tuple(each) for each in ids}) > 1


def together(model: RunModel, messages: list, *, batch: int) -> list[list[int]]:
    """The tokens of answers, up to their ends."""
    from sailvit.inference.generation import Options

    prompts = [model.generation.prompt(conversation(each)) for each in messages]
    found: dict[int, list[int]] = {}
    for index, (tokens,) in model.generation.tokens(prompts, Options(LONGEST), batch=batch):
        ends = [at for at, token in enumerate(tokens) if token in model.generation.ends]
        found[index] = tokens[: min(ends, default=len(tokens))]
    return [found[index] for index in range(len(messages))]


def test_an_image_is_seen_once_in_many_questions_and_encodings(model: RunModel):
    before = model.generation.visual_tokens.computed
    same = picture(77)
    file = io.BytesIO()
    Image.fromarray(same).save(file, format="PNG")
    ask = [asked({"type": "image", "image": same}, TEXT)] * 5
    first = model.chat(ask, max_new_tokens=2)
    assert model.generation.visual_tokens.computed == before + 1
    assert model.chat(ask[0], max_new_tokens=2) == first[0]
    model.chat(asked({"type": "image", "image": file.getvalue()}, TEXT), max_new_tokens=2)
    model.chat(asked({"type": "image", "image": file.getvalue()}, TEXT), max_new_tokens=2)
    assert model.generation.visual_tokens.computed == before + 2


def test_tensors_of_the_processor_generate_what_chat_answers(model: RunModel):
    inputs = model.processor(CONVERSATIONS)
    ids = model.generate(**inputs, max_new_tokens=LONGEST)
    assert model.processor.batch_decode(cut(ids, model)) == model.chat(
        CONVERSATIONS, max_new_tokens=LONGEST
    )
    scored = model.generate(
        **inputs, max_new_tokens=2, output_scores=True, return_dict_in_generate=True
    )
    assert len(scored.scores) == 2
    right = {
        "input_ids": inputs["input_ids"].flip(1),
        "attention_mask": inputs["attention_mask"].flip(1),
        "pixel_values": inputs["pixel_values"],
    }
    with pytest.raises(DataError, match="padded on the right"):
        model.generate(**right)


def cut(ids: torch.Tensor, model: RunModel) -> list[list[int]]:
    ends = model.generation.ends
    rows = ids.tolist()
    return [
        row[: next((at for at, token in enumerate(row) if token in ends), len(row))] for row in rows
    ]


class Always(LogitsProcessor):
    """Makes one token the only choice."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids, scores):
        scores = torch.full_like(scores, -torch.inf)
        scores[:, self.token] = 0
        return scores


def test_everything_of_transformers_generation_is_offered(model: RunModel):
    one = CONVERSATIONS[0]
    greedy = model.chat(one, max_new_tokens=LONGEST)
    assert model.chat(one, max_new_tokens=LONGEST, do_sample=False, num_beams=1) == greedy
    torch.manual_seed(0)
    drawn = {
        model.chat(one, max_new_tokens=LONGEST, do_sample=True, temperature=5.0) for _ in range(4)
    }
    assert len(drawn) > 1
    beams = model.chat(one, max_new_tokens=LONGEST, num_beams=3, num_return_sequences=2)
    assert len(beams) == 2
    several = model.chat(CONVERSATIONS, max_new_tokens=LONGEST, num_beams=3, num_return_sequences=2)
    assert several[0] == beams
    assert [len(answers) for answers in several] == [2] * 5
    red = model.bundle.tokenizer("a").input_ids[0]
    assert model.chat(one, max_new_tokens=4, logits_processor=[Always(red)]) == "aaaa"
    assert (
        model.chat(one, max_new_tokens=4, logits_processor=[Always(red)], stop_strings="aaa") == ""
    )
    streamer = TextIteratorStreamer(model.bundle.tokenizer, skip_special_tokens=True)
    model.chat(one, max_new_tokens=LONGEST, streamer=streamer)
    assert "".join(streamer).strip() == greedy
    with pytest.raises(DataError, match="no option 'max_token'"):
        model.chat(one, max_token=3)
    with pytest.raises(DataError, match="did you mean 'temperature'"):
        model.generate(None, "a", temperatur=3)


def test_a_streamed_answer_is_the_answer_and_ends_when_it_is_closed(model: RunModel):
    for messages in CONVERSATIONS:
        pieces = list(model.stream(messages, max_new_tokens=LONGEST))
        assert "".join(pieces) == model.chat(messages, max_new_tokens=LONGEST)
    a = model.bundle.tokenizer("a").input_ids[0]
    steps: list[int] = []

    class Counting(Always):
        def __call__(self, input_ids, scores):
            steps.append(1)
            return super().__call__(input_ids, scores)

    stream = model.stream(CONVERSATIONS[0], max_new_tokens=4000, logits_processor=[Counting(a)])
    assert next(stream) == "a"
    stream.close()
    made = len(steps)
    assert made < 4000
    assert isinstance(model.chat(CONVERSATIONS[0], max_new_tokens=2), str)
    assert len(steps) == made


def test_errors_of_generation_reach_who_reads_the_stream(model: RunModel):
    class Broken(LogitsProcessor):
        def __call__(self, input_ids, scores):
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        list(model.stream(CONVERSATIONS[0], logits_processor=[Broken()]))
    with pytest.raises(DataError, match="missing"):
        model.chat(asked({"type": "image", "image": "missing.png"}, TEXT))


def test_half_precision_answers_with_weights_of_half_the_size(parts: Parts):
    bundle = parts.build()
    for parameter in bundle.mllm.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model = RunModel(bundle)
    assert len(model.chat(CONVERSATIONS, max_new_tokens=4)) == 5
    assert bundle.mllm.tower.mean.dtype == torch.float32


def test_a_prompt_beyond_a_table_of_positions_is_refused_in_a_sentence(parts: Parts):
    model = RunModel(bundle_of(parts, "gpt2"))
    with pytest.raises(DataError, match="table of positions ends at 128"):
        model.chat(asked({"type": "text", "text": "red " * 100}), max_new_tokens=60)


def test_an_empty_list_of_questions_has_no_answers(model: RunModel):
    assert model.generate([], []) == []
    assert json.dumps(model.generate(None, "")) is not None
    assert np.size(model.chat(asked({"type": "text", "text": ""}), max_new_tokens=1)) == 1


@pytest.fixture(scope="module")
def world() -> RunModel:
    """The demo's tower and language, whose tokenizer knows whole words."""
    return RunModel(
        build(ModelConfig(tower="sailvit:world/tower", language="sailvit:world/language"))
    )


@pytest.mark.parametrize("kind", ["words", "bytes"])
@pytest.mark.parametrize("batch", [1, 8])
def test_answers_end_before_texts_that_are_named(
    model: RunModel, world: RunModel, kind: str, batch: int
):
    model = world if kind == "words" else model
    texts = ["what is it ?", "how many ?", "what ?"]
    asked = {"max_new_tokens": 30, "min_new_tokens": 30, "batch": batch}
    plain = model.generate(None, texts, **asked)
    assert all(len(text) > 12 for text in plain)
    # Over the border of words, of tokens, and one that never comes.
    stops = [plain[0][4:11], plain[1][2:5], "never said"]
    expected = []
    for text in plain:
        found = [at for stop in stops if (at := text.find(stop)) >= 0]
        expected.append(text[: min(found)].strip() if found else text)
    assert expected[0] != plain[0]
    assert model.generate(None, texts, stop_strings=stops, **asked) == expected
    assert model.generate(None, texts, stop_strings=["", "never said"], **asked) == plain


def test_rows_end_at_the_step_in_which_a_stop_is_whole(world: RunModel):
    model, asked = world, {"max_new_tokens": 30, "min_new_tokens": 30}
    inputs = model.processor([{"role": "user", "content": "what is it ?"}])
    plain = model.generate(**inputs, **asked)
    tokenizer = model.bundle.tokenizer
    stop = tokenizer.decode(plain[0, 1:4])
    ended = model.generate(**inputs, **asked, stop_strings=stop)
    first = next(end for end in range(1, 31) if stop in tokenizer.decode(plain[0, :end]))
    assert ended.tolist() == plain[:, :first].tolist()
    assert first < 30

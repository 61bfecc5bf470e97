"""Samples: images where their placeholders are, and cuts that never split an image."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from small_tokenizers import layout_for

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.data.samples import SampleBuilder


def picture(shade: int, width: int = 8, height: int = 8) -> np.ndarray:
    return np.full((height, width, 3), shade, np.uint8)


def talk(question: str, answer: str, *images, kind: str = "chat") -> Record:
    return Record("r1", (Turn("user", question), Turn("assistant", answer)), images, kind)


def test_tiles_follow_their_placeholders(chatml, layout):
    builder = SampleBuilder(chatml, layout_for(chatml, max_tiles=4), 500)
    sample = builder("src", talk("<image> <image>", "yes", picture(10, 16, 8), picture(200)))
    assert sample.id == "src/r1"
    assert [int(tile[0, 0, 0]) for tile in sample.tiles] == [10, 10, 10, 200]
    assert sample.image_of_tile.tolist() == [0, 0, 0, 1]
    assert int((sample.tokens == layout.placeholder_id).sum()) == 4 * layout.tokens_per_tile
    assert {sample.tokens.dtype, sample.labels.dtype, sample.image_of_tile.dtype} == {torch.int64}


def test_text_only_samples_have_no_tiles(chatml, layout):
    sample = SampleBuilder(chatml, layout, 500)("src", talk("one plus one?", "two"))
    assert sample.tiles.shape == (0, 3, 8, 8)
    assert sample.image_of_tile.shape == (0,)


@pytest.mark.parametrize(
    ("question", "images", "kind", "caption"),
    [
        ("<image> describe", 1, "caption", True),
        ("<image> describe", 1, "chat", False),
        ("<image><image> describe", 2, "caption", False),
        ("describe", 0, "caption", False),
    ],
)
def test_only_captions_of_one_image_form_a_pair(chatml, layout, question, images, kind, caption):
    record = talk(question, "a red circle", *[picture(1)] * images, kind=kind)
    assert SampleBuilder(chatml, layout, 500)("src", record).caption is caption


def test_a_draft_opens_no_image_at_fixed_resolution(chatml, layout):
    builder = SampleBuilder(chatml, layout, 500)
    draft = builder.draft("src", talk("<image>", "yes", b"broken"))
    assert len(draft) == len(draft.text.tokens)
    with pytest.raises(DataError, match="cannot be opened"):
        builder.finish(draft)


def test_encoded_images_are_decoded_and_resized(chatml, layout):
    buffer = io.BytesIO()
    Image.fromarray(picture(77, 30, 20)).save(buffer, "PNG")
    sample = SampleBuilder(chatml, layout, 500)("src", talk("<image>", "yes", buffer.getvalue()))
    assert sample.tiles.shape == (1, 3, 8, 8)
    assert (sample.tiles == 77).all()


def test_a_long_answer_is_cut_to_the_pack(chatml, layout):
    record = talk("<image>", "red circle " * 50, picture(1))
    whole = SampleBuilder(chatml, layout, 10_000)("src", record)
    cut = SampleBuilder(chatml, layout, 40)("src", record)
    assert cut.tokens.equal(whole.tokens[:40])
    assert cut.labels[:39].equal(whole.labels[:39])
    assert cut.labels[39] == -100
    assert cut.tiles.equal(whole.tiles)


@pytest.mark.parametrize("longest", range(30, 200, 7))
def test_an_image_is_cut_off_whole_or_not_at_all(chatml, longest):
    builder = SampleBuilder(chatml, layout_for(chatml, tokens_per_tile=20), longest)
    turns = (Turn("user", "a?"), Turn("assistant", "b"), Turn("user", "<image>"), Turn("assistant", "c"))
    turns += (Turn("user", "<image>"), Turn("assistant", "d" * 50))
    sample = builder("src", Record("r", turns, (picture(1), picture(2))))
    assert len(sample.tokens) <= longest
    assert int((sample.tokens == builder.layout.placeholder_id).sum()) == 20 * len(sample.tiles)
    assert (sample.labels >= 0).any()


def test_a_prompt_that_fills_the_pack_is_refused(chatml, layout):
    with pytest.raises(DataError, match="lengthen the recipe's `sequence`"):
        SampleBuilder(chatml, layout, 20)("src", talk("what colour? " * 30, "red"))


def test_a_prompt_is_the_sample_up_to_its_answer(chatml, layout):
    builder = SampleBuilder(chatml, layout, 500)
    record = talk("<image> colour?", "red", picture(5))
    sample, prompt = builder("src", record), builder.prompt("src", record)
    answer = int((sample.labels >= 0).nonzero()[0]) + 1
    assert prompt.tokens.equal(sample.tokens[:answer])
    assert prompt.tiles.equal(sample.tiles)
    assert (prompt.labels == -100).all()


def test_padding_is_never_the_placeholder(chatml, layout):
    assert SampleBuilder(chatml, layout, 10).padding_id == chatml.pad_token_id != layout.placeholder_id

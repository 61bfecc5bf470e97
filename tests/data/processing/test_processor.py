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
from sailvit.data.processing import processor as samples
from sailvit.data.processing.images import join_tiles, load_image
from sailvit.data.processing.processor import Processor


def picture(shade: int, width: int = 8, height: int = 8) -> np.ndarray:
    return np.full((height, width, 3), shade, np.uint8)


def talk(question: str, answer: str, *images, kind: str = "chat") -> Record:
    return Record("r1", (Turn("user", question), Turn("assistant", answer)), images, kind)


def test_tiles_follow_their_placeholders(chatml, layout):
    processor = Processor(chatml, layout_for(chatml, max_tiles=4), 500)
    sample = processor("src", talk("<image> <image>", "yes", picture(10, 16, 8), picture(200)))
    assert sample.id == "src/r1"
    assert [int(tile[0, 0, 0]) for tile in sample.tiles] == [10, 10, 10, 200]
    assert sample.image_of_tile.tolist() == [0, 0, 0, 1]
    assert int((sample.tokens == layout.placeholder_id).sum()) == 4 * layout.tokens_per_tile
    assert {sample.tokens.dtype, sample.labels.dtype, sample.image_of_tile.dtype} == {torch.int64}


def test_text_only_samples_have_no_tiles(chatml, layout):
    sample = Processor(chatml, layout, 500)("src", talk("one plus one?", "two"))
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
    assert Processor(chatml, layout, 500)("src", record).caption is caption


def test_a_draft_opens_no_image_at_fixed_resolution(chatml, layout):
    processor = Processor(chatml, layout, 500)
    draft = processor.draft("src", talk("<image>", "yes", b"broken"))
    assert len(draft) == len(draft.text.tokens)
    with pytest.raises(DataError, match="cannot be opened"):
        processor.finish(draft)


def test_encoded_images_are_decoded_and_resized(chatml, layout):
    buffer = io.BytesIO()
    Image.fromarray(picture(77, 30, 20)).save(buffer, "PNG")
    sample = Processor(chatml, layout, 500)("src", talk("<image>", "yes", buffer.getvalue()))
    assert sample.tiles.shape == (1, 3, 8, 8)
    assert (sample.tiles == 77).all()


def test_a_long_answer_is_cut_to_the_pack(chatml, layout):
    record = talk("<image>", "red circle " * 50, picture(1))
    whole = Processor(chatml, layout, 10_000)("src", record)
    cut = Processor(chatml, layout, 40)("src", record)
    assert cut.tokens.equal(whole.tokens[:40])
    assert cut.labels[:39].equal(whole.labels[:39])
    assert cut.labels[39] == -100
    assert cut.tiles.equal(whole.tiles)


@pytest.mark.parametrize("longest", range(30, 200, 7))
def test_an_image_is_cut_off_whole_or_not_at_all(chatml, longest):
    processor = Processor(chatml, layout_for(chatml, tokens_per_tile=20), longest)
    turns = (
        Turn("user", "a?"),
        Turn("assistant", "b"),
        Turn("user", "<image>"),
        Turn("assistant", "c"),
    )
    turns += (Turn("user", "<image>"), Turn("assistant", "d" * 50))
    sample = processor("src", Record("r", turns, (picture(1), picture(2))))
    assert len(sample.tokens) <= longest
    assert int((sample.tokens == processor.layout.placeholder_id).sum()) == 20 * len(sample.tiles)
    assert (sample.labels >= 0).any()


def test_a_prompt_that_fills_the_pack_is_refused(chatml, layout):
    with pytest.raises(DataError, match="lengthen the recipe's `sequence`"):
        Processor(chatml, layout, 20)("src", talk("what colour? " * 30, "red"))


def test_a_prompt_is_the_sample_up_to_its_answer(chatml, layout):
    processor = Processor(chatml, layout, 500)
    record = talk("<image> colour?", "red", picture(5))
    sample, prompt = processor("src", record), processor.prompt("src", record)
    answer = int((sample.labels >= 0).nonzero()[0]) + 1
    assert prompt.tokens.equal(sample.tokens[:answer])
    assert prompt.tiles.equal(sample.tiles)
    assert (prompt.labels == -100).all()


def test_padding_is_never_the_placeholder(chatml, layout):
    assert Processor(chatml, layout, 10).padding_id == chatml.pad_token_id != layout.placeholder_id


def turns_about(*images: np.ndarray) -> Record:
    """A question and an answer per image."""
    pairs = [(Turn("user", "<image>what?"), Turn("assistant", "red")) for _ in images]
    return Record("r", tuple(turn for pair in pairs for turn in pair), images)


@pytest.mark.parametrize(("most", "shown"), [(None, 3), (7, 3), (6, 2), (4, 2), (3, 1), (1, 1)])
def test_images_beyond_the_budget_are_cut_off_with_what_follows(chatml, most, shown):
    processor = Processor(chatml, layout_for(chatml, max_tiles=4), 500)
    record = turns_about(picture(1), picture(2, 16, 8), picture(3, 8, 16))
    sample = processor.finish(processor.draft("src", record, most_tiles=most))
    assert sample.image_of_tile.unique().tolist() == list(range(shown))
    assert int((sample.tokens == processor.layout.placeholder_id).sum()) == 2 * len(sample.tiles)
    assert len(sample.tiles) <= (most or 7)
    assert (sample.labels >= 0).any()


def test_a_record_whose_first_image_is_beyond_the_budget_is_too_long(chatml):
    processor = Processor(chatml, layout_for(chatml, max_tiles=4), 500)
    with pytest.raises(DataError, match="allow fewer tiles") as caught:
        processor.draft("src", turns_about(picture(2, 16, 8)), most_tiles=2)
    assert caught.value.kind == "too long"


@pytest.mark.parametrize("text", ["nul \0", "surrogate \ud800", "x" * 2_000_001])
def test_what_is_no_text_is_refused(chatml, layout, text):
    with pytest.raises(DataError, match="a turn"):
        Processor(chatml, layout, 500).draft("src", talk("what?", text))


def encoded(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(shade)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("with_room", [False, True])
def test_an_image_shown_again_is_decoded_once(layout, tmp_path, monkeypatch, with_room):
    loads = []
    monkeypatch.setattr(
        samples, "load_image", lambda image: loads.append(image) or load_image(image)
    )
    (tmp_path / "a.png").write_bytes(encoded(9))
    images = [
        encoded(7),
        tmp_path / "a.png",
        encoded(7),
        tmp_path / "a.png",
        picture(5),
        picture(5),
    ]
    room = torch.zeros(10_000, dtype=torch.uint8) if with_room else None
    tiler = samples.Tiler(layout, room)
    cuts = [tiler(image) for image in images]
    assert [int(cut[0, 0, 0, 0]) for cut in cuts] == [7, 9, 7, 9, 5, 5]
    assert len(loads) == 4
    if room is not None:
        assert tiler.used == 6 * 192
        assert join_tiles(cuts).data_ptr() == room.data_ptr()
        assert room[:1152].view(6, 192)[:, 0].tolist() == [7, 9, 7, 9, 5, 5]


def test_room_given_back_is_used_again_and_nothing_known_points_there(layout):
    room = torch.zeros(10_000, dtype=torch.uint8)
    tiler = samples.Tiler(layout, room)
    first, used = tiler(encoded(1)), tiler.used
    tiler(encoded(2))
    tiler.give_back(used)
    third, second = tiler(encoded(3)), tiler(encoded(2))
    assert [int(cut[0, 0, 0, 0]) for cut in (first, third, second)] == [1, 3, 2]
    assert tiler.used == 3 * 192


def test_tiles_are_joined_without_a_copy_only_where_they_lie_in_order():
    whole = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
    in_order, apart, turned = (
        [whole[:1], whole[1:4]],
        [whole[:1], whole[2:]],
        [whole[1:], whole[:1]],
    )
    assert join_tiles(in_order).data_ptr() == whole.data_ptr()
    for cuts in (in_order, apart, turned, [whole, whole.clone()]):
        assert join_tiles(cuts).equal(torch.cat(cuts))

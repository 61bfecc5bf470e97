"""Pictures with captions, and what towers and whole models make of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.evaluation.affinity.features import (
    TokenEmbeddings,
    model_features,
    patch_features,
)
from sailvit.evaluation.affinity.pictures import Picture, open_pictures
from sailvit.evaluation.affinity.study import Sizes, Study
from tiny_parts import LANGUAGES, picture


@pytest.fixture
def folder(tmp_path):
    for n in range(9):
        Image.fromarray(picture(n, 40, 30)).save(tmp_path / f"{n}.png")
    return tmp_path


def test_the_same_pictures_are_drawn_for_a_seed_and_fewer_come_first(folder):
    pictures = open_pictures(folder, seed=3)
    names = [each.name for each in pictures.draw(6)]
    assert [each.name for each in open_pictures(folder, seed=3).draw(4)] == names[:4]
    assert [each.name for each in open_pictures(folder, seed=4).draw(6)] != names
    assert len({each.name for each in pictures.draw(50)}) == 9
    assert not pictures.captioned


def test_pictures_that_cannot_be_read_are_left_out_and_named(folder):
    (folder / "broken.png").write_bytes(b"no picture")
    pictures = open_pictures(folder)
    assert len(pictures.draw(50)) == 9
    assert list(pictures.skipped) == ["broken.png"]
    for path in folder.glob("[0-9].png"):
        path.unlink()
    with pytest.raises(DataError, match="no picture that can be read"):
        open_pictures(folder).draw(5)


def test_captions_lie_beside_pictures(folder):
    for n in range(9):
        (folder / f"{n}.txt").write_text(f"picture {n}")
    pictures = open_pictures(folder)
    assert pictures.captioned
    drawn = pictures.draw(3)
    assert all(each.caption == f"picture {each.name[0]}" for each in drawn)


def test_a_caption_may_speak_of_the_mark(parts):
    shown = Picture("one", picture(1), "an <image> of nothing")
    seen = model_features(parts.build(), shown, layers=True)
    assert len(seen.text[0]) > 10


@pytest.mark.parametrize("language", LANGUAGES)
def test_states_are_those_of_the_language_by_itself(parts, language):
    bundle = parts.build(language=language)
    shown = Picture("one", picture(1), "a red circle")
    seen = model_features(bundle, shown, layers=True)
    assert len(seen.visual) == len(seen.text) == 2
    assert seen.tokens.shape == (4, 32)
    assert all(each.shape == (4, 32) for each in seen.visual)
    # Other pictures change what stands behind them, other captions not what stands before.
    other = model_features(bundle, Picture("two", picture(2), "a red circle"), layers=True)
    said = model_features(bundle, Picture("one", picture(1), "a blue circle"), layers=True)
    assert not torch.allclose(other.text[1], seen.text[1], atol=1e-4)
    assert torch.allclose(said.visual[1], seen.visual[1], atol=1e-5)


def test_a_language_without_hidden_states_is_said_and_the_rest_goes_on(parts, folder):
    for n in range(9):
        (folder / f"{n}.txt").write_text(f"picture {n}")
    bundle = parts.build()
    forward = bundle.mllm.language.forward
    bundle.mllm.language.forward = lambda **given: forward(
        **{**given, "output_hidden_states": False}
    )
    study = Study(open_pictures(folder), Sizes(pictures=3, pairs=8))
    study.model("run", bundle, "its own", None)
    (entry,) = study.values["joint"]
    assert entry["integration"] is None
    assert entry["retrieval"]["image_to_text_at_1"]["n"] == 8
    (left,) = study.values["left_out"]
    assert "gives no hidden states" in left["why"]


def test_native_resolution_gives_as_many_tokens_as_the_grid(parts):
    bundle = parts.build(image={"mode": "native", "max_patches": 64})
    seen = model_features(bundle, Picture("one", picture(1, 48, 32), "red"), layers=True)
    assert len(seen.tokens) == 6
    assert np.isfinite(seen.tokens).all()


def test_rows_are_what_the_language_reads(parts):
    bundle = parts.build(language="gemma3")
    text = TokenEmbeddings(bundle)
    ids = torch.tensor([65, 66])
    expected = bundle.mllm.language.get_input_embeddings()(ids).detach().numpy()
    assert np.allclose(text.take(ids.numpy()), expected)
    assert len(text) < len(bundle.tokenizer)


def test_patches_are_the_towers_own(parts):
    tower = parts.build().mllm.tower.eval()
    (features,) = patch_features(tower, [picture(1, 50, 70)])
    assert features.shape == (16, 32)

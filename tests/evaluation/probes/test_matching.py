"""Zero-shot and retrieval: ranks against plain code, equal captions, and a run's own space."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from labelled_files import coloured, encoded, write_folders

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.evaluation.probes.matching import (
    ConnectorSpace,
    embedded_images,
    read_class_names,
    recalled,
    retrieval,
    split_prompts,
    zero_shot,
)
from sailvit.evaluation.probes.sets.captions import caption_set, open_captions
from sailvit.evaluation.probes.sets.opening import open_labelled
from sailvit.models.towers.tower import Preprocessing
from sailvit.training.objectives.base import Contrastive
from tiny_parts import picture, samples, single_batches


class Colours:
    """An encoder that knows the colours of `coloured`: a text holds the number of a class."""

    def __init__(self) -> None:
        self.tower = type("T", (), {})()
        self.tower.preprocessing = Preprocessing(8, (0, 0, 0), (1, 1, 1))
        self.tower.patches, self.tower.mean = 1, torch.zeros(1)
        self.asked = []

    def images(self, tiles):
        return torch.nn.functional.normalize(tiles.float().mean((2, 3)) - 127, dim=-1)

    def texts(self, texts):
        self.asked += texts
        numbers = [int("".join(c for c in text if c.isdigit())) for text in texts]
        pictures = [coloured(number, 99, 64).reshape(-1, 3).mean(0) for number in numbers]
        return torch.nn.functional.normalize(torch.tensor(np.array(pictures)).float() - 127, dim=-1)


def embed(encoder):
    def run(images, name):
        return embedded_images(
            encoder, images, name, batch=4, threads=1, seen=lambda done, total: None
        )

    return run


def test_ranks_are_those_of_plain_code():
    rng = np.random.default_rng(0)
    asked, held = (torch.from_numpy(rng.normal(size=(n, 6))).float() for n in (30, 40))
    asked_of, held_of = rng.integers(30, size=60), rng.integers(40, size=60)
    found = recalled(asked, held, asked_of, held_of)
    scores = (asked @ held.T).numpy()
    for row in range(30):
        right = held_of[asked_of == row]
        order = np.argsort(-scores[row])
        for top in (1, 5, 10):
            assert found[top][row] == float(np.isin(order[:top], right).any())


class Rows(list):
    """Records as a source."""

    fingerprint = "rows"


def records():
    """Six captions of four pictures: two of one picture, and two pictures of one text."""
    files = [encoded(coloured(label, seed)) for label, seed in ((0, 1), (1, 1), (2, 1), (2, 2))]
    shown = [(0, "class 0"), (0, "zero 0"), (1, "class 1"), (2, "class 2"), (3, "class 2")]
    return Rows(
        Record(str(n), (Turn("user", "<image>?"), Turn("assistant", text)), (files[at],), "caption")
        for n, (at, text) in enumerate(shown)
    )


def test_equal_texts_and_captions_of_one_image_are_all_right():
    captions = caption_set("shapes", records())
    encoder = Colours()
    found = {o.metric: o for o in retrieval("retrieval", encoder, captions, embed=embed(encoder))}
    assert found["R@1 image to text"].count == 4
    assert found["R@1 text to image"].count == 4
    assert found["R@1 image to text"].value == found["R@1 text to image"].value == 100
    assert [name for name, each in found.items() if each.main] == [
        "R@1 image to text",
        "R@1 text to image",
    ]
    assert {each.layer for each in found.values()} == {-1}


def test_captions_are_of_one_image_and_damage_is_told(tmp_path):
    rows = records()
    rows.append(Record("none", (Turn("user", "hi"), Turn("assistant", "ho"))))
    assert "1 records are no caption of one image" in caption_set("x", rows).notes[0]
    assert "3 of 6 records are drawn" in caption_set("x", rows, 3).notes[-1]
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(encoded(coloured(index, 0)))
        (tmp_path / f"{index}.txt").write_text(f"class {index}")
    (tmp_path / "1.png").write_bytes(b"")
    captions = open_captions(tmp_path)
    encoder = Colours()
    found = retrieval("retrieval", encoder, captions, embed=embed(encoder))
    assert found[0].count == 2
    with pytest.raises(DataError, match="has 0 captions of single images"):
        caption_set("x", Rows(rows[-1:]))


def test_classes_are_named_in_prompts(tmp_path):
    write_folders(tmp_path / "train", ["n0", "n1", "n_2"], 1)
    write_folders(tmp_path / "val", ["n0", "n1", "n_2"], 4, seed=50)
    encoder = Colours()
    found = zero_shot(
        encoder,
        open_labelled(tmp_path),
        ["a photo of a {}.", "{}!"],
        {"n0": ["zero 0", "nought 0"]},
        embed=embed(encoder),
    )
    assert found[0].value == 100
    assert (found[0].probe, found[0].metric, found[0].count) == ("zero-shot", "top-1", 12)
    assert encoder.asked[:4] == [
        "a photo of a zero 0.",
        "a photo of a nought 0.",
        "zero 0!",
        "nought 0!",
    ]
    assert "a photo of a n 2." in encoder.asked


def test_a_runs_space_is_that_of_its_contrastive_objective(parts):
    bundle = parts.build()
    shown = [
        Record(
            str(n), (Turn("user", "<image>?"), Turn("assistant", text)), (picture(n),), "caption"
        )
        for n, text in enumerate(["a red circle", "blue"])
    ]
    (first, second) = single_batches(samples(bundle, shown))
    space = ConnectorSpace(bundle)
    for record, batch in zip(shown, (first, second), strict=True):
        visual = bundle.mllm.visual(batch.tiles)
        image, text = Contrastive().pairs(bundle.mllm, visual, batch)
        torch.testing.assert_close(space.images(batch.tiles), image)
        torch.testing.assert_close(space.texts([record.turns[-1].text]), text)


def test_prompts_and_names_are_checked(tmp_path):
    with pytest.raises(DataError, match=r"has no \{\}"):
        list(split_prompts(["a photo"]))
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"a": "ant", "b": ["bee", "wasp"]}))
    assert read_class_names(path) == {"a": ["ant"], "b": ["bee", "wasp"]}
    for wrong in ("[1]", "{", '{"a": 3}'):
        path.write_text(wrong)
        with pytest.raises(DataError, match="no names of classes"):
            read_class_names(path)

"""Answers with SAIL's tilings are those of the same weights with that layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sailvit.api.predicting import plain_predictions, sail_predictions
from sailvit.core.records import Record, Turn
from sailvit.data.processing.images import tile_count
from sailvit.evaluation.suites.sets import QuestionSet
from sailvit.inference.generation import Options
from sailvit.inference.model import RunModel
from tiny_parts import Parts, picture

OPTIONS = Options(6)


def asked(name: str, *images: np.ndarray) -> Record:
    text = "<image>\n" * len(images) + "what is it?"
    return Record(name, (Turn("user", text), Turn("assistant", "")), images)


def said(pairs) -> dict[int, str]:
    return {number: prediction.text for number, prediction in pairs}


def test_one_image_is_cut_twice_and_several_once(parts: Parts):
    bundle = parts.build()
    records = [
        asked("one", picture(1, 90, 60)),
        asked("two", picture(2, 90, 60), picture(3, 60, 90)),
        asked("other", picture(4, 200, 40)),
    ]
    layouts = [
        replace(bundle.layout, max_tiles=10, thumbnail=True, second_grid=count == 1)
        for count in (1, 2, 1)
    ]
    counts = [tile_count(record.images[0], at) for record, at in zip(records, layouts, strict=True)]
    assert counts[0] > counts[1] > 1
    found = said(sail_predictions(RunModel(bundle), QuestionSet("x", "mcq"), records, OPTIONS, 4))
    for number, (record, layout) in enumerate(zip(records, layouts, strict=True)):
        alone = RunModel(replace(bundle, layout=layout))
        assert alone.answers([record], OPTIONS, batch=1) == [found[number]]


def test_the_first_image_of_mmmu_is_enlarged(parts: Parts):
    bundle = parts.build()
    small = picture(1, 30, 30)
    record = asked("one", small)
    large = asked("one", np.asarray(small).repeat(2, 0).repeat(2, 1))
    layout = replace(bundle.layout, max_tiles=12, thumbnail=True, second_grid=True)
    # Of equal shapes, the larger image fills more tiles: what is asked has other tokens.
    counts = [tile_count(each.images[0], layout) for each in (record, large)]
    assert counts == [5, 14]
    kinds = [QuestionSet("MMMU_DEV_VAL", "mmmu"), QuestionSet("MMMU_DEV_VAL", "mcq")]
    lengths = []
    for kind in kinds:
        model, seen = RunModel(bundle), []
        hook = model.language.register_forward_pre_hook(
            lambda module, args, given, seen=seen: (
                seen.append(given["inputs_embeds"].shape[1])
                if given.get("inputs_embeds") is not None
                else None
            ),
            with_kwargs=True,
        )
        said(sail_predictions(model, kind, [record], OPTIONS, 1))
        hook.remove()
        lengths.append(max(seen))
    per_tile = bundle.layout.tokens_per_tile
    assert lengths[0] - lengths[1] == (counts[1] - counts[0]) * per_tile


def test_an_image_that_cannot_be_decoded_fails_alone(parts: Parts):
    records = [asked("good", picture(1)), asked("bad", b"no image"), asked("fine", picture(2))]
    model = RunModel(parts.build())
    made = dict(plain_predictions(model.generation, records, OPTIONS, 4))
    assert [bool(made[number].error) for number in range(3)] == [False, True, False]
    sail = dict(sail_predictions(model, QuestionSet("x", "mcq"), records, OPTIONS, 4))
    assert [bool(sail[number].error) for number in range(3)] == [False, True, False]

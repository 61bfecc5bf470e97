"""Predictions of a model for the questions of a set, in batches, with the tiles that it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sailvit.core.errors import DataError, one_line
from sailvit.core.records import Record
from sailvit.data.processing.images import Doubled
from sailvit.evaluation.suites.predictions import FAILED, Prediction
from sailvit.evaluation.suites.sets import QuestionSet
from sailvit.evaluation.suites.tilings import sail_layout
from sailvit.inference.generation import Generation, Options, Prompt
from sailvit.inference.model import RunModel
from sailvit.inference.text_stream import text_of


def plain_predictions(
    generation: Generation, records: Sequence[Record], options: Options, batch: int
) -> Iterator[tuple[int, Prediction]]:
    """Answers as their batches are done; a record whose prompt or image cannot be made fails
    alone.
    """
    prompts: list[tuple[int, Prompt]] = []
    for number, record in enumerate(records):
        try:
            prompts.append((number, generation.prompt(record)))
        except DataError as error:
            yield number, Prediction(FAILED, one_line(error))
    waiting = dict(enumerate(prompts))
    try:
        for place, (tokens,) in generation.tokens([p for _, p in prompts], options, batch=batch):
            number, _ = waiting.pop(place)
            yield number, Prediction(text_of(generation.tokenizer, tokens, generation.ends))
    except DataError:
        # An image of some prompt cannot be decoded: one at a time shows of which.
        for number, prompt in waiting.values():
            yield number, _alone(generation, prompt, options)


def _alone(generation: Generation, prompt: Prompt, options: Options) -> Prediction:
    try:
        ((_, (tokens,)),) = generation.tokens([prompt], options, batch=1)
    except DataError as error:
        return Prediction(FAILED, one_line(error))
    return Prediction(text_of(generation.tokenizer, tokens, generation.ends))


def sail_predictions(
    model: RunModel, asked: QuestionSet, records: Sequence[Record], options: Options, batch: int
) -> Iterator[tuple[int, Prediction]]:
    """The same with SAIL's tilings, which depend on how many images a question has.

    MMMU's first image is enlarged to twice its size before it is cut, as SAIL-VL's is.
    """
    for count in sorted({len(record.images) for record in records}):
        places = [at for at, record in enumerate(records) if len(record.images) == count]
        some = [records[at] for at in places]
        if asked.kind == "mmmu" and count:
            some = [
                replace(each, images=(Doubled(each.images[0]), *each.images[1:])) for each in some
            ]
        layout = sail_layout(model.bundle.layout, asked.name, count)
        # The weights are shared: only how images become tiles is another.
        generation = Generation(replace(model.bundle, layout=layout))
        for number, prediction in plain_predictions(generation, some, options, batch):
            yield places[number], prediction

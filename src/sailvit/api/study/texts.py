"""How well a model's language predicts texts without images, which tells what it forgot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from sailvit.core.bad_records import UNUSABLE
from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Sample
from sailvit.core.seeding import numpy_generator
from sailvit.data.processing.processor import Processor
from sailvit.data.sources import open_source
from sailvit.models.loading.build import ModelBundle
from sailvit.training.monitoring.measure import pack_loss
from sailvit.training.monitoring.monitored import packs

_LONGEST = 1024
"""Tokens of a pack; longer texts are cut. A fixed number, so that all models read the same."""


@dataclass(frozen=True)
class TextLoss:
    """The loss of a language on texts."""

    loss: float
    """Negative log-likelihood of all answers' tokens, in nats."""
    tokens: int
    """Tokens of the answers."""
    texts: int
    """Texts that were read."""


@torch.no_grad()
def text_loss(bundle: ModelBundle, config: SourceConfig, count: int, seed: int) -> TextLoss:
    """The model's loss on the answers of `count` texts of a source, drawn by `seed`.

    Each text is read with the model's own chat template and sees no other one, as in training
    and in monitoring.

    Raises:
        DataError: the source cannot be read, or has no records without images.
    """
    source = open_source("text", config, Path())
    processor = Processor(bundle.tokenizer, bundle.layout, _LONGEST, day=bundle.day)
    order = numpy_generator(seed, "texts").permutation(len(source)).tolist()

    def usable() -> Iterator[Sample]:
        """The texts in their drawn order; a record that cannot be read is none of them."""
        for position in order:
            try:
                record = source[position]
                if not record.images:
                    yield processor("text", record)
            except UNUSABLE:
                continue

    texts = tuple(islice(usable(), count))
    if not texts:
        raise DataError(
            f"the source of texts ({config.format}) has no record without images; expected some"
        )
    device = bundle.mllm.device
    found = [pack_loss(bundle.mllm, pack, device) for pack in packs(texts, _LONGEST)]
    return TextLoss(sum(loss for loss, _ in found), sum(n for _, n in found), len(texts))

"""The demo world's held-out questions, and the features from which affinity is measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sailvit.core.records import Record
from sailvit.data.processing.processor import Processor
from sailvit.models.languages.embeddings import token_embeddings
from sailvit.models.loading.build import ModelBundle
from sailvit.synthetic.world.source import WorldSource


def held_out(tasks: Sequence[str], per_task: int, seed: int) -> list[tuple[str, Record]]:
    """`per_task` held-out records of every task, with the task's name; no training scene is
    among them.
    """
    sources = {task: WorldSource("held_out", task, per_task, seed) for task in tasks}
    return [
        (task, source[position]) for task, source in sources.items() for position in range(per_task)
    ]


@torch.no_grad()
def image_features(bundle: ModelBundle, records: Sequence[Record]) -> NDArray[np.float32]:
    """float[N, D]: the mean visual token of every record's first image, in the language's
    embedding space.
    """
    processor = Processor(bundle.tokenizer, bundle.layout, longest=1 << 30, day=bundle.day)
    rows = []
    for record in records:
        shown = processor.prompt("shown", record)
        tiles = shown.tiles.to(bundle.mllm.language.device)
        rows.append(bundle.mllm.visual(tiles, grids=shown.grids).float().mean(dim=(0, 1)).cpu())
    features: NDArray[np.float32] = torch.stack(rows).numpy()
    return features


def embedding_rows(bundle: ModelBundle) -> NDArray[np.float32]:
    """float[M, D]: what the language reads at every token that is not special."""
    plain = [
        index
        for index in range(len(bundle.tokenizer))
        if index not in bundle.tokenizer.all_special_ids
    ]
    rows = token_embeddings(bundle.mllm.language, torch.tensor(plain)).float().cpu()
    chosen: NDArray[np.float32] = rows.numpy()
    return chosen

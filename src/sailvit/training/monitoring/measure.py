"""Measurements of a model in training that leave no trace in it: drift, perplexity, affinity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from sailvit.core.records import Sample
from sailvit.core.tiles import cut
from sailvit.data.processing.collate import collate
from sailvit.distributed.processes import gather_rows, rank, sum_values, world
from sailvit.models.languages.embeddings import token_embeddings
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.embedding_table import words_of
from sailvit.models.measures.affinity import affinity
from sailvit.models.structure.mllm import MLLM
from sailvit.models.structure.parallel import let_go
from sailvit.training.monitoring.monitored import MonitoringData, packs
from sailvit.training.stages.stage_run import StageRun

_ROWS = 4096
"""Most patch features that are compared: four times the width of a tower of 1024, as CKA is too
high with fewer rows (`linear_cka`)."""
_WORDS = 2000
"""Most rows of the embedding table that affinity compares."""


@dataclass(frozen=True)
class ModelFeatures:
    """The model's features of the monitored tiles; the same on every process."""

    tower: torch.Tensor
    """float[N, D]: the tower's features, as many patches of every tile."""
    visual: torch.Tensor
    """float[I, E]: each tile's mean visual token."""
    words: torch.Tensor
    """float[M, E]: embeddings of words as the language reads them."""


@contextmanager
def undisturbed(run: StageRun) -> Iterator[None]:
    """A context in which the model is measured and training not disturbed: no graph, no
    dropout, no random number drawn.
    """
    model, device = run.model, run.device
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
            stack.enter_context(
                torch.autocast(device.type, torch.bfloat16, enabled=run.recipe.precision == "bf16")
            )
            if run.recipe.parallel.compile:
                # Other shapes without a graph would be compiled anew, for minutes.
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        for module, training in modes:
            module.training = training
        let_go(model)


def model_features(run: StageRun, data: MonitoringData) -> ModelFeatures | None:
    """The model's features of the tiles, which are divided among the processes; None without
    tiles.
    """
    if not len(data.tiles):
        return None
    layout = run.bundle.layout
    most = max(1, run.recipe.sequence // layout.squared.tokens_per_tile)
    count = len(data.tiles)
    own = data.tiles[_own(count)].to(run.device)
    # Never more tiles at once than a pack of the run holds.
    seen = [
        _one_pass(run.model, own[at : at + most], _ROWS // count) for at in range(0, len(own), most)
    ]
    features, visual = (gather_rows(torch.cat(side)) for side in zip(*seen, strict=True))
    per_tile = len(features) // len(visual)
    return ModelFeatures(features[: count * per_tile], visual[:count], _words(run.bundle))


def perplexity(run: StageRun, data: MonitoringData) -> float | None:
    """Exp of the mean loss on the texts' answers; None without texts. Processes divide the
    texts among them.
    """
    filled = packs(data.texts, run.recipe.sequence)
    if not filled:
        return None
    loss = answers = 0.0
    for place, index in enumerate(_own(len(filled))):
        found, tokens = pack_loss(run.model, filled[index], run.device)
        if rank() * _each(len(filled)) + place < len(filled):
            loss += found
            answers += tokens
    loss, answers = sum_values([loss, answers], run.device)
    # exp overflows a float above 709, and JSON has no infinity.
    return math.exp(min(loss / max(answers, 1.0), 700.0))


def pack_loss(model: MLLM, texts: Sequence[Sample], device: torch.device) -> tuple[float, int]:
    """The summed loss on the answers of texts in one pack, and how many tokens these have."""
    batch = collate([list(texts)]).to(device)
    scores = model(batch).scores
    return float(scores.loss(batch.labels[batch.labels >= 0])), batch.answer_tokens


def distances(features: ModelFeatures) -> dict[str, float]:
    """Affinity of the mean visual tokens and the embeddings, by its three distances."""
    found = affinity(features.visual.float().cpu().numpy(), features.words.float().cpu().numpy())
    return {"nearest": found.nearest, "wasserstein": found.wasserstein, "mean": found.mean}


def _one_pass(model: MLLM, tiles: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Evenly taken patch features float[I * R, D] and mean visual tokens float[I, E] of tiles
    uint8[I, C, H, W].

    The tower's output is caught while the whole visual side runs: of a sharded model no part
    can run by itself.
    """
    caught: list[torch.Tensor] = []
    handle = model.tower.register_forward_hook(
        lambda module, given, features: caught.append(features)
    )
    try:
        if model.native:
            side = tiles.shape[-1] // model.tile_size
            grids = ((side, side),) * len(tiles)
            visual = model.visual(cut(tiles, model.tile_size), grids=grids)
        else:
            visual = model.visual(tiles)
    finally:
        handle.remove()
    features = caught[0].reshape(len(tiles), -1, caught[0].shape[-1])
    patches = features.shape[1]
    taken = (
        torch.linspace(0, patches - 1, max(1, min(patches, rows)), device=features.device)
        .round()
        .long()
    )
    seen = visual.reshape(len(tiles), -1, visual.shape[-1])
    return features[:, taken].flatten(0, 1).float(), seen.float().mean(dim=1)


def _words(bundle: ModelBundle) -> torch.Tensor:
    """Evenly taken input embeddings float[M, E] of tokens that are not special."""
    language = bundle.mllm.language
    words = torch.from_numpy(
        words_of(bundle.tokenizer, language.get_input_embeddings().num_embeddings)
    )
    taken = torch.linspace(0, len(words) - 1, min(len(words), _WORDS)).round().long()
    return token_embeddings(language, words[taken]).float()


def _each(count: int) -> int:
    return -(-count // world())


def _own(count: int) -> list[int]:
    """Which of `count` things this process measures. Each process has equally many, as passes
    of a sharded model have collectives; where they run out the last one is repeated.
    """
    start = rank() * _each(count)
    return [min(index, count - 1) for index in range(start, start + _each(count))]

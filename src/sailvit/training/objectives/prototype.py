"""CoMP's alignment loss, as far as its description goes: images and captions told by words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch.nn.functional import embedding, log_softmax, normalize

from sailvit.core.batch import Batch
from sailvit.core.errors import ModelError
from sailvit.distributed.processes import gather_rows
from sailvit.distributed.sharding import whole
from sailvit.models.structure.mllm import MLLM, Activations
from sailvit.training.objectives.objective import Objective
from sailvit.training.objectives.pairs import caption_rows, captioned, image_rows

TEMPERATURE = 0.005
"""Of cosines, as CoMP gives it (arXiv 2503.18931): a tenth of a cosine is a factor of e^20."""
ROUNDS = 3
"""Of Sinkhorn's normalisation, as in SwAV (arXiv 2006.09882)."""


class Prototype(Objective):
    """Cross-entropy of the words that an image is nearest to, against those of its caption.

    The rows of the language's head are prototypes. An image, the mean connector output of its
    tiles, and a caption, the mean input embedding of its tokens, are both told by their cosines
    with all of them. The caption's target is its share in a balanced assignment (Sinkhorn) of
    all captions of the step to all words, over every micro-batch and process. Targets and
    prototypes have no gradient, so that the loss moves what makes visual tokens and nothing else.

    CoMP's published code weights the words of its assignment by their frequency and reads its
    captions through the language; its description gives neither. Here every word has the same
    weight: with N captions each is spread over at least K / N of K words.
    """

    needs_pairs = True

    def __init__(self) -> None:
        super().__init__()
        # No buffers: they are of one step, and nothing to save.
        self._prototypes: torch.Tensor | None = None
        self._targets: torch.Tensor | None = None
        self._row = 0

    def units(self, batch: Batch) -> int:
        """Number of images with a caption."""
        return batch.captioned_images

    @torch.no_grad()
    def prepare(self, model: MLLM, batches: Sequence[Batch]) -> None:
        """Assign the captions of all micro-batches and processes to words; the tower does not run.

        Raises:
            ModelError: the language has no head whose rows are as wide as visual tokens.
        """
        head = model.language.get_output_embeddings()
        # Before a step's first pass a sharded language has its table in shards, and its module
        # cannot look anything up.
        look_up = partial(embedding, weight=whole(model.language.get_input_embeddings().weight))
        captions = torch.cat([caption_rows(look_up, batch) for batch in batches])
        rows = None if head is None else whole(head.weight)
        if rows is None or rows.shape[1] != captions.shape[1]:
            found = "none" if rows is None else f"rows of {rows.shape[1]}"
            raise ModelError(
                f"the objective prototype reads visual tokens, which are {captions.shape[1]} wide,"
                f" against the rows of the language's head; found {found}. Use contrastive"
            )
        # Outside autocast: bf16 knows a cosine to 0.004, which this temperature makes e^0.8.
        with torch.autocast(captions.device.type, enabled=False):
            self._prototypes = normalize(rows.float(), dim=-1)
            self._targets = balanced(captions @ self._prototypes.T / TEMPERATURE)
        self._row = 0

    def forward(self, model: MLLM, activations: Activations, batch: Batch) -> torch.Tensor:
        """Sum over the batch's images of their cross-entropies, float[] of shape (), from visual
        tokens float[I, V, D].
        """
        del model
        assert self._prototypes is not None
        assert self._targets is not None
        count = len(captioned(batch))
        targets = self._targets[self._row : self._row + count]
        self._row += count
        with torch.autocast(activations.visual.device.type, enabled=False):
            images = image_rows(activations.visual, batch)
            told = log_softmax(images @ self._prototypes.T / TEMPERATURE, dim=-1)
            return -(targets * told).sum()


def balanced(scores: torch.Tensor, rounds: int = ROUNDS) -> torch.Tensor:
    """float[n, K]: shares of K words in each of this process's n captions, from their scores.

    Rows add up to 1. Over the captions of all processes every word has, the nearer the more
    rounds, the same weight. Only the words' sums travel between processes.
    """
    # In logarithms: scores differ by up to 400, and exp of that is no float.
    for _ in range(rounds):
        own = torch.logsumexp(scores, dim=0, keepdim=True)
        scores = scores - torch.logsumexp(gather_rows(own), dim=0, keepdim=True)
        scores = scores - torch.logsumexp(scores, dim=1, keepdim=True)
    return scores.exp()

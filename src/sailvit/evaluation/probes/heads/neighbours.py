"""k-nearest neighbours by DINO's protocol: cosine, votes weighted by exp(cosine / temperature)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sailvit.core.errors import DataError
from sailvit.evaluation.probes.heads.training import Features
from sailvit.evaluation.probes.sets.labelled import Labels

TEMPERATURE = 0.07
"""DINO's temperature."""
_QUERIES = 1024
"""Images whose neighbours are looked for at once."""
_BANK = 65536
"""Images of the training set that they are compared with at once: 256 MB of cosines."""


@torch.inference_mode()
def neighbour_votes(
    bank: tuple[Features, Labels, Labels],
    queries: tuple[Features, Labels],
    classes: int,
    *,
    neighbours: int,
    device: torch.device,
) -> Iterator[torch.Tensor]:
    """float[B, C] at a time: votes of the nearest images for every class.

    Args:
        bank: Mean features float[N, D], the rows of them to look in, and the labels of these.
        queries: Mean features float[N, D], and the rows of them to look for.
        classes: Number of classes.
        neighbours: k, the images that vote.
        device: Where it is computed.

    Raises:
        DataError: the bank has fewer images than neighbours are asked for.
    """
    features, rows, labels = bank
    if len(rows) < neighbours:
        raise DataError(
            f"the {neighbours} nearest of {len(rows)} training images, those of the test set's"
            " classes, are asked for; choose fewer with --neighbours"
        )
    truth = torch.from_numpy(labels).to(device)
    for at in range(0, len(queries[1]), _QUERIES):
        asked = _unit(queries[0], queries[1][at : at + _QUERIES], device)
        # Below any cosine: the bank has enough images, so none of these places is left at the end.
        best = torch.full((len(asked), neighbours), -2.0, device=device)
        voters = torch.zeros(len(asked), neighbours, dtype=torch.long, device=device)
        for begin in range(0, len(rows), _BANK):
            cosines = asked @ _unit(features, rows[begin : begin + _BANK], device).T
            found, places = cosines.topk(min(neighbours, cosines.shape[1]), dim=-1)
            best, order = torch.cat([best, found], dim=-1).topk(neighbours, dim=-1)
            voters = torch.cat([voters, places + begin], dim=-1).gather(1, order)
        votes = torch.zeros(len(asked), classes, device=device)
        # Less the largest: exp(1 / 0.07) is 1.6e6, and float32 ends votes of far ones at 0.
        weights = ((best - best[:, :1]) / TEMPERATURE).exp()
        yield votes.scatter_add_(1, truth[voters], weights)


def _unit(features: Features, rows: Labels, device: torch.device) -> torch.Tensor:
    found = torch.from_numpy(np.asarray(features[rows])).to(device).float()
    return torch.nn.functional.normalize(found, dim=-1)

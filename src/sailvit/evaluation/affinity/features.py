"""Features of pictures, from a tower by itself and from a whole model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sailvit.core.errors import ModelError
from sailvit.core.layout import VisualLayout
from sailvit.data.processing.decoding import Pixels
from sailvit.data.processing.images import tile_image
from sailvit.data.processing.processor import Processor
from sailvit.evaluation.affinity.integration import Layers
from sailvit.evaluation.affinity.pictures import Picture
from sailvit.models.languages.embeddings import token_embeddings
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.embedding_table import words_of
from sailvit.models.packing.attention import PACKED
from sailvit.models.packing.proof import segments_of
from sailvit.models.towers.tower import Tower

Floats = NDArray[np.float32]

_LONGEST = 4096
"""Most tokens of a picture with its caption in the language."""
_TOKENS = 1024
"""Visual tokens of a picture that count: those of a tile, or evenly taken ones of many tiles."""
_KEPT = 64
"""Visual tokens of a picture kept per layer: 32 pictures in 28 layers of width 2048 take 0.5
GB."""


@torch.no_grad()
def patch_features(tower: Tower, images: Sequence[Pixels]) -> list[Floats]:
    """Patch features float32[P, D] of each image, which becomes one square tile."""
    layout = VisualLayout(tower.preprocessing.size, tower.patches, 0, "", max_tiles=1)
    device = tower.mean.device
    # One by one: a few hundred images are no reason to guess what fits into memory.
    return [
        tower(tile_image(image, layout).to(device))[0].float().cpu().numpy() for image in images
    ]


class TokenEmbeddings:
    """Rows float32[M, D] of a loaded language: what its own layer gives for tokens that are words,
    which some languages scale.
    """

    def __init__(self, bundle: ModelBundle) -> None:
        self._language = bundle.mllm.language
        rows, self.width = self._language.get_input_embeddings().weight.shape
        self._words = words_of(bundle.tokenizer, rows)

    def __len__(self) -> int:
        return len(self._words)

    def read(self, start: int, stop: int) -> Floats:
        """Rows start to stop, float32[n, D]."""
        return self.take(self._words[start:stop])

    @torch.no_grad()
    def take(self, tokens: NDArray[np.int64]) -> Floats:
        """float32[n, D]: the embeddings of tokens."""
        rows = token_embeddings(self._language, torch.from_numpy(tokens))
        found: Floats = rows.float().cpu().numpy()
        return found


@dataclass(frozen=True)
class Seen:
    """What a model makes of a picture."""

    tokens: Floats
    """float32[V, D]: its visual tokens behind the connector."""
    visual: Layers
    """float[n, D] per layer: hidden states at some of these; nothing where not asked for."""
    text: Layers
    """float[n, D] per layer: hidden states behind the picture."""


@torch.no_grad()
def model_features(bundle: ModelBundle, picture: Picture, *, layers: bool) -> Seen:
    """A picture's visual tokens, and with `layers` hidden states of the language that reads it
    with its caption.

    Raises:
        ModelError: the language gives no hidden states.
    """
    mllm = bundle.mllm
    processor = Processor(bundle.tokenizer, bundle.layout, _LONGEST, day=bundle.day)
    sample = processor("shown", picture.record())
    visual = mllm.visual(sample.tiles.to(mllm.device), grids=sample.grids)
    tokens = _spread(visual.flatten(0, 1), _TOKENS).float().cpu().numpy()
    if not layers:
        return Seen(tokens, (), ())
    ids = sample.tokens.to(mllm.device)
    given: dict[str, Any] = {}
    # Packed attention asks where samples end; here is a single one.
    if mllm.language.config._attn_implementation == PACKED:
        given["segments"] = segments_of((len(ids),), ids.device)
    # By keyword from a table, as only packed attention knows `segments`.
    given |= {"inputs_embeds": mllm.embed(ids, visual)[None], "output_hidden_states": True}
    states = getattr(mllm.language(**given), "hidden_states", None)
    if states is None:
        raise ModelError(
            f"{type(mllm.language).__name__} gives no hidden states; expected a tensor per layer"
        )
    places = (ids == mllm.placeholder_id).nonzero().flatten()
    chosen = _spread(places, _KEPT)
    # Texts before the picture have not seen it, so they say nothing of how both mix.
    behind = int(places[-1]) + 1
    return Seen(
        tokens,
        # The first are the embeddings, which no layer has seen.
        [state[0, chosen].float().cpu() for state in states[1:]],
        [state[0, behind:].float().cpu() for state in states[1:]],
    )


def _spread(items: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of the items, evenly taken."""
    places = torch.linspace(0, len(items) - 1, min(most, len(items)), device=items.device)
    return items[places.round().long()]

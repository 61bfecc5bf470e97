"""The multimodal model: tower + connector + language, composed and otherwise untouched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from sailvit.core.batch import IGNORED, Batch, Grids
from sailvit.core.errors import ModelError
from sailvit.core.recipe import Part
from sailvit.models.languages.adapters import Adapters
from sailvit.models.languages.embeddings import refuse_token_ids
from sailvit.models.languages.head import Scores, has_plain_head, product_dtype
from sailvit.models.languages.unreached import unreached
from sailvit.models.packing.rotations import separate_rotations
from sailvit.models.packing.segments import Segments
from sailvit.models.packing.ways import Reader, Reading, Row, Way
from sailvit.models.structure.answering import Answering
from sailvit.models.structure.connector import Connector
from sailvit.models.structure.packing_choice import Chosen
from sailvit.models.towers.tower import Tower


@dataclass(frozen=True)
class Activations:
    """What objectives see of one forward pass."""

    visual: torch.Tensor
    """float[I, V, D]: the connector's output for every tile."""
    scores: Scores | None
    """Scores over the vocabulary at the A positions with a label, in order; None when not asked
    for."""
    routers: tuple[torch.Tensor, ...] = ()
    """float[B * T, E] per layer with experts: their scores, where asked for."""

    @property
    def logits(self) -> torch.Tensor | None:
        """float[A, N]: all scores at once; None when not asked for."""
        return None if self.scores is None else self.scores.logits


class MLLM(nn.Module):
    """One multimodal model over packed batches."""

    def __init__(
        self,
        tower: Tower,
        connector: Connector,
        language: PreTrainedModel,
        placeholder_id: int,
        *,
        native: bool = False,
        adapters: Adapters | None = None,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.connector = connector
        self.language = language
        self.placeholder_id = placeholder_id
        self.adapters = adapters
        """Through which alone the language trains; None: it trains its own weights."""
        refuse_token_ids(language)
        # Before passes without gradients: some languages keep their last states, graph and all.
        self.unreached = unreached(language)
        """Weights of the language that no gradient reaches, which therefore never train."""
        self.plain_head = has_plain_head(language)
        self.same_up_to = separate_rotations(language)
        """Length up to which samples have the same rotations; None where length never matters."""
        self.chosen = Chosen()
        """How the language reads the samples of a pack; `packing_choice.choose_way` proves
        and sets it."""
        self.answering: Answering | None = None
        """How it answers; proved before its first answer."""
        self.rewritten = False
        """Whether the forward is no longer the plain one: sharded or compiled."""
        self.everywhere = False
        """Whether tower and connector run in every pass, with or without an image, because
        other processes may wait in their collectives."""
        self.native = native
        """Whether tiles are what becomes one visual token, and images grids of them."""

    def part(self, part: Part) -> nn.Module:
        """The Hugging Face model behind `part`: what trains, and what is saved."""
        modules: dict[Part, nn.Module] = {
            "tower": self.tower.model,
            "connector": self.connector,
            "language": self.language,
        }
        return modules[part]

    def forward(self, batch: Batch, *, logits: bool = True, routers: bool = False) -> Activations:
        """Visual tokens float[I, V, D] and, if asked, logits float[A, N] at the labels of
        int64[B, T] tokens.

        Without `logits` the language does not run at all. Only labelled positions reach the
        language's head, so no scores are ever computed for prompt and image tokens. With
        `routers` scores of experts come too.
        """
        visual = self._visual(batch.tiles, batch.features, batch.grids)
        if not logits:
            return Activations(visual, None)
        row = Row(
            self.embed(batch.tokens.flatten(), visual),
            batch.positions.flatten(),
            Segments(batch.boundaries, batch.longest),
            (batch.labels.flatten() != IGNORED).nonzero().flatten(),
        )
        reading = self._reader(self.chosen.way).read(row, routers=routers)
        return Activations(visual, self._scores(reading), reading.routers)

    def read(
        self, tokens: torch.Tensor, segments: Segments, way: Way, *, last: int | None = None
    ) -> torch.Tensor:
        """Outputs float[T, W] of the language at all of int64[T] tokens without images, or at the
        `last` ones, read in `way`.
        """
        embedded = self.language.get_input_embeddings()(tokens)
        keep = torch.arange(len(tokens)).to(tokens)
        return self._read(embedded, segments, keep[-(last or 0) :], way).outputs

    def score(
        self, embedded: torch.Tensor, segments: Segments, keep: torch.Tensor, way: Way
    ) -> torch.Tensor:
        """Logits float[A, N] at int64[A] positions of embeddings float[T, D], read in `way`."""
        return self._scores(self._read(embedded, segments, keep, way)).logits

    def _read(
        self, embedded: torch.Tensor, segments: Segments, keep: torch.Tensor, way: Way
    ) -> Reading:
        bounds = segments.boundaries.long()
        # Positions begin anew in every sample, as they do in a batch.
        places = torch.arange(len(embedded), device=embedded.device)
        positions = places - bounds[:-1].repeat_interleave(bounds.diff())
        return self._reader(way).read(Row(embedded, positions, segments, keep))

    def _reader(self, way: Way) -> Reader:
        placed = self.same_up_to is not None
        return Reader(self.language, way, self.plain_head, together=self.everywhere, placed=placed)

    def _scores(self, reading: Reading) -> Scores:
        # Such a head does more than one product, so the scores are the language's own.
        if not self.plain_head:
            return Scores(given=reading.outputs)
        head, hidden = self.language.get_output_embeddings(), reading.outputs
        return Scores(hidden, head.weight, head.bias, dtype=product_dtype(hidden.device))

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        device: torch.device = self.language.device
        return device

    def visual(
        self,
        tiles: torch.Tensor,
        features: torch.Tensor | None = None,
        grids: Grids | None = None,
    ) -> torch.Tensor:
        """Visual tokens float[I, V, D] of tiles uint8[I, C, H, W]; I may be 0.

        `features` float[I, P, D] spare the tower where they are known, from `features()`.
        `grids` are those of a batch or sample.
        """
        return self._visual(tiles, features, grids)

    def features(self, tiles: torch.Tensor, grids: Grids | None = None) -> torch.Tensor | None:
        """The tower's float[I, P, D] of tiles uint8[I, C, H, W]; None where no tower has to run.

        Where the parts run in every pass (`everywhere`), no tiles give the features of a blank
        one.
        """
        return self._features(tiles, grids) if len(tiles) or self.everywhere else None

    def _features(self, tiles: torch.Tensor, grids: Grids | None) -> torch.Tensor:
        if not len(tiles):
            size = self.tile_size
            # Nothing of it is used, but its graph leads through both parts, as with an image.
            tiles = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=tiles.device)
            grids = ((1, 1),) if self.native else None
        features: torch.Tensor = self.tower(tiles, grids)
        return features

    def _visual(
        self, tiles: torch.Tensor, features: torch.Tensor | None, grids: Grids | None
    ) -> torch.Tensor:
        if not len(tiles) and not self.everywhere:
            width = self.language.get_input_embeddings().weight.shape[1]
            return torch.zeros(0, self.visual_tokens, width, device=tiles.device)
        visual: torch.Tensor = self.connector(
            self._features(tiles, grids) if features is None else features
        )
        # Empty, but with the graph through both parts, in which other processes may wait.
        return visual if len(tiles) else visual[:0]

    @property
    def tile_size(self) -> int:
        """Height and width of a tile, in pixels."""
        if self.native:
            return self.tower.patch * int(self.connector.config.merge)
        return self.tower.preprocessing.size

    @property
    def tile_patches(self) -> int:
        """P: patches of one tile."""
        return (self.tile_size // self.tower.patch) ** 2

    @property
    def visual_tokens(self) -> int:
        """V: visual tokens of one tile."""
        return self.tile_patches // int(self.connector.config.merge) ** 2

    def embed(self, tokens: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        """float[T, D]: input embeddings of int64[T] tokens, placeholders replaced by float[I,
        V, D] visual tokens.
        """
        embedded: torch.Tensor = self.language.get_input_embeddings()(tokens)
        places = (tokens == self.placeholder_id).nonzero().flatten()
        features = visual.flatten(0, 1).to(embedded.dtype)
        if len(places) != len(features):
            raise ModelError(
                f"the batch has {len(places)} placeholder tokens but {len(features)} visual tokens, from {len(visual)}"
                " tiles; the visual layout that tokenized the data must be the one of this model"
            )
        # Not in place, as a language that trains needs the embeddings' own gradient.
        return embedded.index_copy(0, places, features)

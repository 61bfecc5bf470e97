"""The objectives that recipes name, and how one is found by its name."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from sailvit.core.batch import IGNORED, Batch
from sailvit.core.errors import RecipeError
from sailvit.core.own_code import is_own, own_class
from sailvit.core.recipe import Recipe
from sailvit.distributed.processes import as_one, gather_rows, rows_before
from sailvit.models.experts import balance
from sailvit.models.loading.parts import load_tower
from sailvit.models.structure.mllm import MLLM, Activations
from sailvit.models.towers.tower import Tower
from sailvit.training.objectives.objective import Objective
from sailvit.training.objectives.pairs import caption_rows, captioned, image_rows
from sailvit.training.objectives.prototype import Prototype


class NextToken(Objective):
    """Cross-entropy of the next token, at answer positions only."""

    needs_logits = True

    def units(self, batch: Batch) -> int:
        """Number of answer tokens."""
        return batch.answer_tokens

    def forward(self, model: MLLM, activations: Activations, batch: Batch) -> torch.Tensor:
        """float[], of shape (): the sum over the A answer tokens of int64[B, T] labels."""
        del model
        assert activations.scores is not None
        return activations.scores.loss(batch.labels[batch.labels != IGNORED])


class Contrastive(Objective):
    """Sigmoid loss between images and captions, with every other image of the global batch as a
    negative.

    An image is the mean connector output of its tiles, a caption the mean input embedding of
    its tokens: the loss pulls visual features towards the space in which affinity is measured.
    Sigmoid loss after SigLIP (arXiv 2303.15343), with its initial scale 10 and bias -10.
    Captions that are the same bag of tokens are no negatives of each other, nor are several
    captions of the same image.
    """

    spans_step = needs_pairs = True

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))
        self._bank: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self._row = 0

    def units(self, batch: Batch) -> int:
        """Number of images with a caption."""
        return batch.captioned_images

    @torch.no_grad()
    def prepare(self, model: MLLM, batches: Sequence[Batch]) -> None:
        """Embed all pairs of an accumulated step, so that negatives span every micro-batch.

        With these embeddings every micro-batch has its share of the whole step's gradient, as
        in GradCache (arXiv 2101.06983). The price is one more forward pass without a graph: of
        tower and connector, or of the connector alone where the tower's features are kept.
        Batches with a seed have the same dropout in both passes.
        """
        self._bank = None
        if len(batches) == 1:
            return
        pairs = [self.pairs(model, _drawn(model, batch), batch) for batch in batches]
        images, captions = (torch.cat(side) for side in zip(*pairs, strict=True))
        self._row = rows_before(len(images), images.device)
        ids = torch.cat([_captioned_ids(batch) for batch in batches])
        self._bank = gather_rows(images), gather_rows(captions), gather_rows(ids)

    def forward(self, model: MLLM, activations: Activations, batch: Batch) -> torch.Tensor:
        """Sum over this batch's images of their terms, float[] of shape (), from visual tokens
        float[I, V, D].

        The value counts each image against all captions. Its gradient also holds the terms of
        this batch's captions against all images, so that summed over micro-batches and
        processes it is the gradient of the whole.
        """
        images, captions = self.pairs(model, activations.visual, batch)
        ids = _captioned_ids(batch)
        if self._bank is None:
            # Other processes' rows come without a graph: each process gives the gradients of
            # its own rows, and their sum over processes is whole.
            row = rows_before(len(images), images.device)
            all_images, all_captions = gather_rows(images), gather_rows(captions)
            all_ids = gather_rows(ids)
        else:
            row, (all_images, all_captions, all_ids) = self._row, self._bank
            self._row += len(images)
        signs = _signs(captions, all_captions, row, same_image=ids == all_ids.T)
        scale, bias = self.log_scale.exp(), self.bias
        by_image = -logsigmoid(signs * (scale * images @ all_captions.T + bias))[signs != 0].sum()
        # Scale and bias learn from the images' terms alone, which hold every pair once.
        fixed = scale.detach() * captions @ all_images.T + bias.detach()
        by_caption = -logsigmoid(signs * fixed)[signs != 0].sum()
        return by_image + by_caption - by_caption.detach()

    def pairs(
        self, model: MLLM, visual: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors float[n, D] of the captioned images and of their captions, row by row."""
        return image_rows(visual, batch), caption_rows(model.language.get_input_embeddings(), batch)


def _drawn(model: MLLM, batch: Batch) -> torch.Tensor:
    """Visual tokens float[I, V, D], with the dropout that the micro-batch's own pass will have."""
    if batch.seed is not None:
        torch.manual_seed(batch.seed)
    return model.visual(batch.tiles, batch.features, batch.grids)


@torch.no_grad()
def _signs(
    captions: torch.Tensor, all_captions: torch.Tensor, row: int, *, same_image: torch.Tensor
) -> torch.Tensor:
    """float[n, N]: 1 for the pair itself, 0 for equal bags of tokens or images, -1 for the rest."""
    # Equal bags of tokens give equal vectors but for rounding.
    signs = (captions @ all_captions.T < 1 - 1e-5).float().neg().masked_fill(same_image, 0.0)
    own = torch.arange(len(captions), device=captions.device)
    signs[own, row + own] = 1.0
    return signs


def _captioned_ids(batch: Batch) -> torch.Tensor:
    """int64[n, 1]: ids of the captioned images, in the order of `Contrastive.pairs`."""
    return batch.image_ids[captioned(batch)][:, None]


class LoadBalancing(Objective):
    """The auxiliary loss of a language with experts, as its own family computes it: lowest when
    all experts are used equally.

    It counts all tokens but padding, and is not linear in them. A step's loss is therefore the
    mean over its micro-batches on all processes, weighted by their tokens, and here alone 1 x 8
    differs from 8 x 1.
    """

    needs_logits = needs_routers = True

    def units(self, batch: Batch) -> int:
        """Number of tokens without padding."""
        return batch.tokens.numel() - batch.padding

    def forward(self, model: MLLM, activations: Activations, batch: Batch) -> torch.Tensor:
        """The loss times the batch's tokens, float[] of shape (), of int64[B, T] tokens."""
        layers = activations.routers
        if batch.filler is not None:
            layers = tuple(layer[~batch.filler.flatten()] for layer in layers)
        total: torch.Tensor = balance(model.language, layers) * self.units(batch)
        return total


class Distill(Objective):
    """Distance of the tower's features from those of the tower that the recipe names.

    It keeps a tower near what it was, so that what stands on its old features, such as a dual
    encoder's text tower, loses less. Per tile it is the squared difference over all patches,
    relative to the squared features of the base: 0 equal, 1 as far as zeros. The price is the
    base tower in memory and one forward pass of it per tile.
    """

    holds_base = True

    def __init__(self) -> None:
        super().__init__()
        self._recipe: Recipe | None = None
        # In a list, as a module of its own would be saved and optimised with the objective.
        self._base: list[Tower] = []
        self._features: torch.Tensor | None = None
        self._left = 0

    def set_up(self, recipe: Recipe) -> None:
        """Take the base tower from what the recipe names, whatever stage this is."""
        self._recipe = recipe

    def units(self, batch: Batch) -> int:
        """Number of tiles."""
        return len(batch.tiles)

    def prepare(self, model: MLLM, batches: Sequence[Batch]) -> None:
        """Listen to the connector during the step's micro-batches, and load the base tower before
        the first; without a recipe it is the tower as it is.
        """
        # Not an output of the model: one more makes sharded weights leave before their gradients.
        self._left = len(batches)
        self._listening = model.connector.register_forward_pre_hook(self._listen)
        if self._base:
            return
        with as_one():
            given = self._recipe
            base = load_tower(given.model)[0] if given else copy.deepcopy(model.tower)
        self._base.append(base.to(model.device).eval().requires_grad_(requires_grad=False))

    def forward(self, model: MLLM, activations: Activations, batch: Batch) -> torch.Tensor:
        """The tiles' distances summed, float[] of shape (), from features float[I, P, D]."""
        features, self._features = self._features, None
        self._left -= 1
        if not self._left:
            self._listening.remove()
        if features is None or not len(batch.tiles):
            return activations.visual.sum() * 0.0
        bf16 = self._recipe is not None and self._recipe.precision == "bf16"
        # As the tower that trains runs, so that equal weights are no distance apart.
        autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=bf16)
        with torch.no_grad(), autocast:
            base = self._base[0](batch.tiles, batch.grids).float()
        apart = (features.float() - base).square().sum((1, 2))
        total: torch.Tensor = (apart / base.square().sum((1, 2))).sum()
        return total

    def _listen(self, module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        """Keep the features float[I, P, D] that the connector is given."""
        del module
        self._features = given[0]


OBJECTIVES: dict[str, type[Objective]] = {
    "next_token": NextToken,
    "contrastive": Contrastive,
    "prototype": Prototype,
    "load_balancing": LoadBalancing,
    "distill": Distill,
}
"""By the name that recipes use."""


def objective_class(name: str) -> type[Objective]:
    """The objective of that name; `module:Class` is one of the user's own.

    Raises:
        RecipeError: it is not registered, or no class of that name is an objective.
    """
    if not is_own(name):
        if name not in OBJECTIVES:
            raise RecipeError(
                f"unknown objective {name!r}; registered are: {', '.join(OBJECTIVES)}, and"
                " module:Class names one of your own"
            )
        return OBJECTIVES[name]
    found = own_class(name, RecipeError)
    if not issubclass(found, Objective):
        raise RecipeError(f"{name} is no objective; expected a subclass of sailvit.Objective")
    if hasattr(found, "looks_ahead"):
        raise RecipeError(f"{name} sets looks_ahead, which now is called spans_step; rename it")
    if found.__abstractmethods__:
        raise RecipeError(
            f"{name} has no {' and no '.join(sorted(found.__abstractmethods__))}; every objective"
            " defines `units` and `forward`"
        )
    return found


def objective_problems(names: Iterable[str]) -> list[str]:
    """Why some of the objectives do not exist; empty when all do."""
    found = []
    for name in names:
        try:
            objective_class(name)
        except RecipeError as error:
            found.append(str(error))
    return found


def known_objectives(names: Iterable[str]) -> list[type[Objective]]:
    """Those of the objectives that exist."""
    return [objective_class(name) for name in names if not objective_problems([name])]


def make_objectives(
    names: Sequence[str], recipe: Recipe | None = None, device: torch.device | None = None
) -> dict[str, Objective]:
    """New objectives by name, on `device`; RecipeError for a name that does not exist.

    Without a recipe they are not set up, as in a trial of random weights.
    """
    made = {name: objective_class(name)().to(device) for name in names}
    if recipe is not None:
        for objective in made.values():
            objective.set_up(recipe)
    return made

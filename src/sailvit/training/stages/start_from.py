"""The weights that a stage starts from, where it does not go on with the stage before's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sailvit.core.errors import ModelError
from sailvit.distributed.processes import as_one
from sailvit.distributed.sharding import fill_all
from sailvit.models.languages.adapters import add_adapters
from sailvit.models.loading.connectors import load_connector
from sailvit.models.loading.parts import load_language, load_tower

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sailvit.core.recipe import Part, Recipe
    from sailvit.models.structure.mllm import MLLM


def load_start(recipe: Recipe, index: int, mllm: MLLM) -> None:
    """Give every part of `mllm` the weights that stage `index` of the recipe starts it from.

    Raises:
        ModelError: a folder holds a part of another shape than the recipe's.
    """
    for part, start in recipe.stages[index].start_from.items():
        if start == "previous":
            continue
        folder = None if start == "recipe" else start
        with as_one():
            weights = _weights(recipe, part, folder, mllm)
        try:
            fill_all(dict(mllm.part(part).named_parameters()), weights)
        except (RuntimeError, KeyError) as error:
            raise ModelError(
                f"the {part} to start from in {folder} does not fit the one that the recipe"
                f" names: {error}"
            ) from error


def _weights(recipe: Recipe, part: Part, folder: str | None, mllm: MLLM) -> dict[str, torch.Tensor]:
    """The part's weights from `folder`; None takes what the recipe's model section names."""
    config = recipe.model
    if part == "connector":
        if folder is not None:
            named = config.connector.model_copy(update={"source": folder})
            config = config.model_copy(update={"connector": named})
        fresh: nn.Module = load_connector(config, mllm.tower, mllm.language, recipe.seed)
        return fresh.state_dict()
    if folder is not None:
        config = config.model_copy(update={part: folder})
    fresh = (
        load_tower(config)[0].model if part == "tower" else load_language(config, recipe.seed)[0]
    )
    if part == "language" and config.lora is not None:
        add_adapters(fresh, config.lora, recipe.seed)
    return fresh.state_dict()

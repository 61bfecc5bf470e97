"""The connector of a recipe's model: from its folder, or new."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ModelConfig
from sailvit.core.seeding import derive_seed
from sailvit.models.guards.errors import Loading
from sailvit.models.loading.parts import resolve_source
from sailvit.models.structure.connector import (
    CONNECTORS,
    Connector,
    MergeConnectorConfig,
    fresh_connector,
    read_config,
    read_connector,
)
from sailvit.models.towers.tower import Tower


def load_connector(
    config: ModelConfig, tower: Tower, language: PreTrainedModel, seed: int
) -> Connector:
    """The connector of `config`: from its folder, or fresh weights drawn from the recipe's seed.

    Raises:
        ModelError: it does not fit tower, language and recipe.
    """
    _refuse_uneven(config, tower)
    if config.connector.source is None:
        return new_connector(config, tower, language, seed)
    source = resolve_source(config.connector.source)
    with Loading("connector", source):
        connector = read_connector(source)
    _refuse_other(config, connector.config, _wanted(config, tower, language))
    return connector


def new_connector(
    config: ModelConfig, tower: Tower, language: PreTrainedModel, seed: int
) -> Connector:
    """The connector of `config` with fresh weights: one that its folder describes keeps its
    shape.

    Raises:
        ModelError: it does not fit tower, language and recipe.
    """
    _refuse_uneven(config, tower)
    wanted = _wanted(config, tower, language)
    saved = _saved(config)
    if saved is not None:
        _refuse_other(config, saved, wanted)
    # A stream of its own: its weights do not depend on what was drawn for other parts.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "connector"))
        if saved is not None:
            return CONNECTORS[config.connector.kind](saved)
        hidden = config.connector.hidden or wanted["language_width"]
        return fresh_connector(config.connector.kind, **wanted, hidden=hidden)


def _saved(config: ModelConfig) -> MergeConnectorConfig | None:
    """What the connector's folder says about it; None where there is no such folder yet."""
    if config.connector.source is None:
        return None
    source = resolve_source(config.connector.source)
    if not (Path(source) / "config.json").is_file():
        return None
    with Loading("connector", source):
        return read_config(source)


def _wanted(config: ModelConfig, tower: Tower, language: PreTrainedModel) -> dict[str, int]:
    width = language.get_input_embeddings().weight.shape[1]
    merge = config.connector.merge
    return {"tower_width": tower.width, "language_width": width, "merge": merge}


def _refuse_uneven(config: ModelConfig, tower: Tower) -> None:
    merge = config.connector.merge
    # In native resolution every grid is made to fit.
    if tower.side % merge == 0 or config.image.native:
        return
    fits = tower.patch * merge
    below = tower.preprocessing.size // fits * fits
    raise ModelError(
        f"the tower's grid of {tower.side} x {tower.side} patches cannot be merged"
        f" {merge} x {merge}; set model.image.size to a multiple of {fits} px ({below} or"
        f" {below + fits}), or model.connector.merge to a divisor of {tower.side}"
    )


def _refuse_other(config: ModelConfig, saved: MergeConnectorConfig, wanted: dict[str, int]) -> None:
    """Refuse a saved connector that is not the one that tower, language and recipe need."""
    source, kind = config.connector.source, config.connector.kind
    found = {name: getattr(saved, name) for name in wanted}
    if found != wanted:
        raise ModelError(f"the connector in {source} has {found}; tower and language need {wanted}")
    if saved.kind != kind:
        raise ModelError(
            f"the connector in {source} is of kind {saved.kind}, and the recipe says {kind};"
            f" set model.connector.kind: {saved.kind}"
        )
    if saved.column_major and config.image.native:
        raise ModelError(
            f"the connector in {source} gives tokens column by column (ps_version v1), which it"
            " learnt for square tiles; set model.image.mode to fixed or tiled"
        )

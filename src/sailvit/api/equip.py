"""`sailvit equip`: a multimodal model with a refined tower, and a recipe that trains them to work
together.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sailvit.api.models import find_model
from sailvit.api.target_recipe import Budget, Target, target_recipe
from sailvit.core.errors import ModelError
from sailvit.core.recipe import PARTS, ModelConfig, Part, SourceConfig
from sailvit.core.run import MODEL_FILE, write_json
from sailvit.interop.equipping import (
    LoadedTower,
    put_weights,
    read_tower,
    renewed_merge,
    write_tower,
)
from sailvit.interop.new_folder import new_folder
from sailvit.interop.parts import MODEL, take_parts
from sailvit.models.loading.folders import link_file
from sailvit.preflight.plan import plan
from sailvit.recipes.dialect import read_yaml
from sailvit.recipes.loader import load_recipe

RECIPE = "target.yaml"
"""File of the recipe of target training; a `recipe.yaml` would make the folder look like a run's."""
_OWN_COLOURS = ("size", "mean", "std")
"""Image settings that come with a tower: its preprocessor config says them."""
_OWN_FEATURES = ("feature_layer", "feature_join", "feature_norm")
"""Settings of what the connector reads of the tower."""


@dataclass(frozen=True)
class Equipped:
    """A multimodal model with a refined tower."""

    folder: Path
    """Where the parts and the recipe are."""
    in_place: bool
    """Whether the tower took the place of one of the same family and shape, so that the
    connector was kept."""
    reason: str
    """Why the connector is renewed; empty where it was kept."""
    connector: str
    """The connector, in words."""
    notes: tuple[str, ...]
    """What a user has to know, a sentence each."""
    problems: tuple[str, ...]
    """What `sailvit plan` finds wrong with the recipe, such as data that are not there yet."""

    @property
    def recipe(self) -> Path:
        """The recipe of target training."""
        return self.folder / RECIPE


@dataclass(frozen=True)
class _Taken:
    """The parts of the multimodal model in their folders, and how they join."""

    settings: dict[str, Any]
    """Settings of a recipe's model section, besides the parts' folders."""
    refused: Mapping[Part, str]
    """Why a part could not be taken."""
    notes: tuple[str, ...] = ()
    """What a user has to know."""


def equip(
    mllm: str,
    tower: str,
    out: Path,
    budget: Budget,
    sources: Mapping[str, SourceConfig] | None = None,
) -> Equipped:
    """Write the parts of a multimodal model with another tower to the new folder `out`, and a
    recipe of target training that starts from them.

    Args:
        mllm: Folder or hub id that `sailvit parts` takes apart; or a run, a stage or a folder of
            three parts.
        tower: Folder or hub id of the refined tower; or a run or a stage that saved one.
        out: New folder.
        budget: How long to train.
        sources: What to train on; None: the open sets that docs/target.md names.

    Raises:
        ModelError: the language cannot be taken, or the tower cannot be loaded.
        RunError: `out` is there already and holds something.
    """
    place, features = _refined(tower)
    with new_folder(out) as draft:
        taken = _taken(mllm, draft)
        if "language" in taken.refused:
            raise ModelError(
                f"the language of {mllm} cannot be taken: {taken.refused['language']}; equip a"
                " multimodal model whose language transformers has a class for"
            )
        reason, side = _swapped(place, draft, taken.refused)
        settings = _joined(taken.settings, features, side, kept=not reason)
        _write_joined(draft, settings, kept=not reason)
        target = Target(settings, not reason, sources)
        text = target_recipe(target, budget, draft)
        (draft / RECIPE).write_text(text, encoding="utf-8")
    return Equipped(
        folder=out,
        in_place=not reason,
        reason=reason,
        connector=_described(settings["connector"]),
        notes=(*taken.notes, *_feature_notes(taken.settings, features, kept=not reason)),
        problems=plan(load_recipe(out / RECIPE)).problems,
    )


def _refined(tower: str) -> tuple[str, dict[str, Any]]:
    """Folder or hub id of the refined tower, and what was read of it in training, as far as its
    run says so.
    """
    folder = Path(tower)
    if not folder.is_dir() or (folder / "config.json").is_file():
        return tower, {}
    found = find_model(tower)
    given = found.config.model_dump(mode="json", include=set(_OWN_FEATURES))
    return str(found.parts / "tower"), given


def _taken(mllm: str, draft: Path) -> _Taken:
    """Put the model's parts into folders of the draft."""
    folder = Path(mllm)
    whole = not folder.is_dir() or (folder / "config.json").is_file()
    if whole:
        made = take_parts(mllm, draft)
        given = read_yaml((draft / MODEL).read_text(encoding="utf-8"), MODEL)["model"]
        (draft / MODEL).unlink()
        return _Taken(
            {k: v for k, v in given.items() if k not in ("tower", "language")},
            made.refused,
            made.notes,
        )
    found = find_model(mllm)
    missing: dict[Part, str] = {}
    for part in PARTS:
        if (found.parts / part).is_dir():
            # Linked where that is possible: languages are large, and nothing here changes a file.
            shutil.copytree(found.parts / part, draft / part, copy_function=link_file)
        else:
            missing[part] = f"{found.parts / part} is not there"
    left = {"tower", "language", "revision", "chat_date"}
    return _Taken(
        found.config.model_dump(mode="json", exclude=left, exclude_defaults=True), missing
    )


def _swapped(place: str, draft: Path, refused: Mapping[Part, str]) -> tuple[str, int]:
    """Write the refined tower into the draft; why the connector has to be renewed, and the new
    grid's side.
    """
    refined = read_tower(place)
    side = refined.tower.side
    if "tower" in refused:
        reason = f"the model's own tower could not be taken out to compare: {refused['tower']}"
    else:
        own = read_tower(str(draft / "tower"))
        reason = put_weights(own.tower, refined.tower)
        if not reason:
            # In the config that the model had, so that what loads it goes on to do so.
            refined = LoadedTower(refined.tower.around(own.tower.model), refined.preprocessor)
        shutil.rmtree(draft / "tower")
    if not reason and "connector" in refused:
        reason = f"the model's connector could not be taken out: {refused['connector']}"
    write_tower(refined, draft / "tower")
    return reason, side


def _joined(
    given: Mapping[str, Any], features: Mapping[str, Any], side: int, *, kept: bool
) -> dict[str, Any]:
    """Settings of the recipe's model section: the model's own, with the connector as it is kept
    or renewed.
    """
    image = {k: v for k, v in given.get("image", {}).items() if k not in _OWN_COLOURS}
    connector = {k: v for k, v in given.get("connector", {}).items() if k != "source"}
    made = {**given, "image": image, "connector": connector}
    if kept:
        return made
    merge = ModelConfig.model_validate({"tower": "-", "language": "-", "connector": connector})
    connector["merge"] = renewed_merge(side, merge.connector.merge)
    # What the old connector read of the old tower says nothing about the new one.
    others = {k: v for k, v in made.items() if k not in _OWN_FEATURES}
    return {**others, **features}


def _write_joined(draft: Path, settings: Mapping[str, Any], *, kept: bool) -> None:
    """Leave the draft as a whole model where it is one; else without a connector."""
    if kept:
        write_json(draft / MODEL_FILE, settings)
        return
    shutil.rmtree(draft / "connector", ignore_errors=True)
    (draft / MODEL_FILE).unlink(missing_ok=True)


def _described(connector: Mapping[str, Any]) -> str:
    config = ModelConfig.model_validate({"tower": "-", "language": "-", "connector": connector})
    return f"{config.connector.kind}, merge {config.connector.merge}"


def _feature_notes(
    given: Mapping[str, Any], features: Mapping[str, Any], *, kept: bool
) -> tuple[str, ...]:
    """A sentence where the kept connector reads another layer than the tower was refined at."""
    read, trained = given.get("feature_layer", -1), features.get("feature_layer", -1)
    if not kept or read == trained:
        return ()
    return (
        f"the model's connector reads layer {read} of the tower, which was refined at layer"
        f" {trained}; what the blocks behind layer {read} learnt is not used",
    )

"""Scores of models side by side, with how they were asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sailvit.core.errors import DataError
from sailvit.core.layout import GridLimits, VisualLayout
from sailvit.evaluation.scoring.results import ScoredAnswer, SetScore
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.suites.average import opencompass_average
from sailvit.evaluation.suites.evaluated import (
    Asking,
    ModelScores,
    comparison,
    results,
    settings_of,
    tiles_note,
)
from sailvit.evaluation.suites.tilings import told_tiles

LAYOUT = VisualLayout(448, 256, 1, "<v>")


def model(label: str, asking: Asking, *, tiles: str = "one tile of 448 px") -> ModelScores:
    scores = {"Mine": SetScore(100.0, {}, (ScoredAnswer("0", 1.0, "A"),), total=1)}
    average = opencompass_average({}, "2026-06", None)
    return ModelScores(label, scores, {}, average, tiles, settings_of(asking, Rules()))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Asking(tiling="sail"), "tiling was 'recipe' for the first and 'sail' for the second"),
        (Asking(longest=16), "max new tokens was 256"),
        (Asking(style="bare"), "prompts was 'vlmevalkit'"),
        (Asking(forms={"Mine": {"suffix": "!"}}), "changed prompts was {}"),
    ],
)
def test_models_that_were_asked_otherwise_are_not_compared(other, said):
    models = [model("base", Asking()), model("refined", other)]
    with pytest.raises(DataError, match=f"base and refined are not comparable: {said}"):
        comparison(models)
    assert len(comparison([models[0], replace(models[0], label="refined")])) == 1


def test_results_hold_how_models_were_asked():
    one = model("base", Asking(tiling="sail", limit=5))
    found = results([one])
    assert (found["tiling"], found["questions per set"], found["matcher"]) == ("sail", 5, "2026-06")
    assert found["models"]["base"]["tiles"] == "one tile of 448 px"
    assert found["comparison note"] == ""


def test_recipes_that_cut_otherwise_are_told_beside_the_comparison():
    pair = [model("base", Asking()), model("refined", Asking(), tiles="up to 6 tiles of 448 px")]
    assert tiles_note(pair) == (
        "images are not cut alike, which is part of every difference (base: one tile of 448 px;"
        " refined: up to 6 tiles of 448 px)"
    )
    assert tiles_note([pair[0], pair[0]]) == ""
    assert results(pair)["comparison note"] == tiles_note(pair)


@pytest.mark.parametrize(
    ("layout", "tiling", "told"),
    [
        (LAYOUT, "recipe", "one tile of 448 px"),
        (replace(LAYOUT, max_tiles=6), "recipe", "up to 6 tiles of 448 px and one of the whole"),
        (replace(LAYOUT, max_tiles=6, thumbnail=False), "recipe", "up to 6 tiles of 448 px"),
        (replace(LAYOUT, max_tiles=6), "sail", "SAIL's budget per set, tiles of 448 px"),
        (
            replace(LAYOUT, tile_size=28, native=GridLimits(4, 900, 16)),
            "recipe",
            "native resolution, up to 900 visual tokens of 28 px",
        ),
    ],
)
def test_how_images_are_cut_is_said_in_words(layout, tiling, told):
    assert told_tiles(layout, tiling) == told

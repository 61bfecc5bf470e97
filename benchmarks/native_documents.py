"""What does the aspect ratio do for reading? The native demo in its three modes, from the same weights and records.

    python benchmarks/native_documents.py

The language learns to copy once per seed; then every mode trains the rest of the recipe native-demo on the same
pictures, about as many a step, and reads strips of a split that no training strip is from. Per mode and seed: the share
that is read exactly, of all strips and of those at least four times as long as wide; the share of digits in their
place; the mean number of visual tokens of a strip; steps and loss of the last stage, seconds of all training. What has
ended is kept and not trained again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from publish import publish

from sailvit.api.running import train_new
from sailvit.api.screen import Screen
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder, read_lines
from sailvit.data.processing.images import image_size, tile_count
from sailvit.inference.answers import answer
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.recipes.loader import load_recipe
from sailvit.synthetic.world.source import WorldSource

SQUARE = ("model.image.mode=fixed", "sequence=512", "stages.2.pack_tiles=14")
TILED = (
    "model.image.mode=tiled",
    "model.image.max_tiles=6",
    "sequence=1408",
    "stages.2.pack_tiles=68",
)
SMALL = ("model.image.size=32", "sequence=640")
LONGER = ("sources.digits.options.size=9000",)
MODES = {
    "native": (),
    "tiled": TILED,
    "fixed": SQUARE,
    "tiled, 32 px": (*TILED, *SMALL),
    "native, 9000 digits": LONGER,
    "tiled, 9000 digits": (*TILED, *LONGER),
    "fixed, 9000 digits": (*SQUARE, *LONGER),
}
"""Overrides of the recipe that make each mode; a pack holds about 14 strips in each."""
SEEDS = {"validation": 6, "test": 7}
"""Seed of the strips to read."""
LONG = 4
"""A strip is long whose longer side is this many times the shorter one."""
RESULTS = Path(__file__).parent / "results" / "native_documents.json"
PARTS = ("tower", "connector", "language")


def staged(recipe: Recipe, index: int, folder: Path, before: Path | None) -> tuple[Path, Any]:
    """One stage of a recipe trained by itself, from another one's parts, unless it was before:
    the folder of its parts, and the model.
    """
    start = {} if before is None else {part: str(before / part) for part in PARTS}
    stage = recipe.stages[index].model_copy(update={"start_from": start})
    run, trained = RunFolder(folder), None
    made = run.stage(0, stage.name)
    if not made.exists():
        trained = train_new(recipe.model_copy(update={"stages": [stage]}), run, Screen())
    return made, trained


def measure(mode: str, seed: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One mode trained stage by stage, and asked. What modes have in common is trained once: a
    language that copies, and in both modes of squares single digits, which are one tile each.
    """
    lengths = (f"sources.strips.options.size={given.strips}", f"seed={seed}")
    recipe = load_recipe("native-demo", [*MODES[mode], *lengths])
    plain = load_recipe("native-demo", lengths)
    count, size = recipe.sources["digits"].options["size"], recipe.model.image.size or 64
    kind = f"native-{count}" if recipe.model.image.native else f"square-{size}px-{count}"
    copied, _ = staged(plain, 0, folder / f"copy-{seed}", None)
    digits = folder / f"digits-{kind}-{seed}"
    known, _ = staged(recipe, 1, digits, copied)
    strips = folder / f"strips-{mode.replace(', ', '-').replace(' ', '-')}-{seed}"
    _, bundle = staged(recipe, 2, strips, known)
    first, last = (list(read_lines(RunFolder(each).metrics)) for each in (digits, strips))
    return {
        **read(bundle, given.asked, SEEDS[given.split]),
        "steps": len(last),
        "samples_per_step": round(given.strips / len(last), 1),
        "loss_of_digits": round(sum(step["loss"]["next_token"] for step in first[-50:]) / 50, 3),
        "loss": round(sum(step["loss"]["next_token"] for step in last[-50:]) / 50, 3),
        "seconds_of_strips": round(sum(step["seconds"] for step in last), 1),
    }


def read(bundle: ModelBundle, asked: int, seed: int) -> dict[str, float]:
    """How well a model reads strips, and how many visual tokens they take."""
    source = WorldSource("held_out", "strip", asked, seed)
    records = [source[position] for position in range(asked)]
    said = [text.split() for text in answer(bundle, records)]
    true = [record.turns[-1].text.split() for record in records]
    right = [found == digits for found, digits in zip(said, true, strict=True)]
    places = [
        found[index : index + 1] == [digit]
        for found, digits in zip(said, true, strict=True)
        for index, digit in enumerate(digits)
    ]
    sizes = [image_size(record.images[0]) for record in records]
    long = [
        is_right
        for is_right, size in zip(right, sizes, strict=True)
        if max(size) >= LONG * min(size)
    ]
    tokens = bundle.layout.tokens_per_tile
    return {
        "exact": round(sum(right) / asked, 3),
        "exact_of_long_ones": round(sum(long) / len(long), 3),
        "digits": round(sum(places) / len(places), 3),
        "visual_tokens": round(
            sum(tile_count(record.images[0], bundle.layout) * tokens for record in records) / asked,
            1,
        ),
    }


def main() -> None:
    """Train and ask every mode with every seed, and write the table, whatever it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strips", type=int, default=6000, help="strips of the last stage")
    parser.add_argument("--asked", type=int, default=400, help="strips that are read afterwards")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of training")
    usual = [mode for mode in MODES if mode != "tiled"]
    parser.add_argument("--modes", nargs="+", choices=MODES, default=usual)
    parser.add_argument("--split", choices=SEEDS, default="test", help="which strips are read")
    parser.add_argument("--keep", type=Path, help="folder for the runs, which stay there")
    given = parser.parse_args()
    quiet_libraries()
    known = {"strips": given.strips, "asked": given.asked, "split": given.split}
    held = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    # Cells of other numbers are not comparable with these.
    cells = held.get("cells", {}) if held.get("settings") == known else {}
    with tempfile.TemporaryDirectory() as made:
        folder = given.keep or Path(made)
        for seed in given.seeds:
            for mode in given.modes:
                cell = f"{mode}, seed {seed}"
                if cell in cells:
                    continue
                cells[cell] = measure(mode, seed, given, folder)
                publish(
                    "native_documents",
                    "python benchmarks/native_documents.py --seeds "
                    + " ".join(sorted({name.rsplit(maxsplit=1)[1] for name in cells})),
                    {"settings": known, "cells": cells},
                )


if __name__ == "__main__":
    main()

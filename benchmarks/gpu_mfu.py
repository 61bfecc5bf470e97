"""MFU and speed of our training and of the transformers Trainer on the published shapes, in all three stages.

    python benchmarks/gpu_mfu.py                 (one GPU with 80 GB or more)
    python benchmarks/gpu_mfu.py --tiny          (a CPU: shows that it runs, publishes nothing)

AIMv2-Large with Qwen2.5-1.5B and AIMv2-Huge with Qwen3-1.7B, random weights, packs of 8192 tokens, tiles of 448 px, up
to ten an image: `sailvit-large` and `sailvit-huge` as they ship, on invented samples. The Trainer has the same parts
(as InternVL), samples, samples per step, precision and loader processes, and groups samples by length; how many it
takes in one forward pass is tried out. FLOPs are those of the model, frozen parts at what they need, padding left out;
the peak is the datasheet's where it is known, else that of a matrix product just before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from publish import publish

from sailvit.core.recipe import Recipe
from sailvit.models.loading.configs import config_source
from sailvit.recipes.loader import load_recipe

RECIPES = {"large": "sailvit-large", "huge": "sailvit-huge"}
TINY = {
    "tower": {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
    },
    "language": {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_window_layers": 2,
        "layer_types": None,
    },
}
"""What `--tiny` makes of the shipped configs."""


def alone(function: Callable[..., Any], *given: Any) -> Any:
    """What `function` returns in a fresh process, so that what others left in memory does not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def device() -> torch.device:
    """The GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def ours(recipe: Recipe, given: argparse.Namespace) -> dict[str, Any]:
    """Every stage's figures, by `sailvit bench train`'s own means."""
    from sailvit.models.loading.quiet import quiet_libraries
    from sailvit.preflight.bench import bench

    quiet_libraries()
    return asdict(
        bench(recipe, device=device(), steps=given.steps, warmup=given.warmup, packs=given.packs)
    )


def theirs(
    recipe: Recipe, index: int, samples: int, micro: int, given: argparse.Namespace
) -> dict[str, Any]:
    """One stage's figures of the Trainer; none where it ran out of memory."""
    from peers.shapes import Window, trainer_speed

    window = Window(given.steps, given.warmup, samples, micro, recipe.workers)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return trainer_speed(recipe, index, window, device(), Path(folder))
        except torch.OutOfMemoryError as error:
            return {"out_of_memory": str(error).splitlines()[0]}


def small(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with two small blocks per part and short packs."""
    model: dict[str, Any] = {}
    for part, changes in TINY.items():
        found, made = Path(config_source(getattr(recipe.model, part))), folder / part
        shutil.copytree(found, made, dirs_exist_ok=True)
        config = json.loads((made / "config.json").read_text())
        changed = {
            **config,
            **{key: value for key, value in changes.items() if key in config or key == "head_dim"},
        }
        (made / "config.json").write_text(json.dumps(changed))
        model[part] = str(made)
    image = recipe.model.image.model_copy(update={"max_tiles": 2})
    changed_model = recipe.model.model_copy(update={**model, "image": image})
    return recipe.model_copy(update={"model": changed_model, "sequence": 2048, "workers": 1})


def compare(recipe: Recipe, given: argparse.Namespace) -> dict[str, Any]:
    """Both on one recipe, stage by stage."""
    found = alone(ours, recipe, given)
    peak = found["datasheet_peak"] or found["measured_peak"]
    rows = {}
    for index, stage in enumerate(found["stages"]):
        # As many samples as our step holds on average.
        samples = max(1, round(stage["samples_per_s"] * stage["seconds"] / stage["steps"]))
        tried = {
            micro: alone(theirs, recipe, index, samples, micro, given)
            for micro in given.micro
            if micro <= samples
        }
        fitting = {micro: row for micro, row in tried.items() if "answer_tokens_per_s" in row}
        best = max(fitting, key=lambda micro: fitting[micro]["answer_tokens_per_s"], default=None)
        row = {
            "ours": {**stage, "mfu_of_peak": stage["flops_per_s"] / peak},
            "samples_per_step": samples,
            "tried": tried,
        }
        if best is not None:
            row["trainer"] = {
                **fitting[best],
                "micro": best,
                "mfu_of_peak": fitting[best]["flops_per_s"] / peak,
            }
            row["ratio_trainer"] = (
                stage["answer_tokens_per_s"] / fitting[best]["answer_tokens_per_s"]
            )
        rows[stage["name"]] = row
        print(
            stage["name"],
            {key: row[key] for key in ("ratio_trainer",) if key in row},
            row["ours"]["mfu_of_peak"],
        )
    facts = {
        key: found[key]
        for key in ("device", "precision", "measured_peak", "datasheet_peak", "invented")
    }
    return {**facts, "stages": rows}


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--steps", type=int, default=6, help="steady steps")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--packs", type=int, default=4, help="packs of our step")
    parser.add_argument(
        "--micro",
        type=int,
        nargs="+",
        default=[2, 4],
        help="samples of the Trainer's forward pass, to try",
    )
    parser.add_argument(
        "--set",
        dest="sets",
        nargs="*",
        default=["parallel.compile=true"],
        help="settings of the recipe",
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="small parts and short packs, to see that all of it runs",
    )
    return parser.parse_args()


def main() -> None:
    """Measure, print, and publish what ran at full size."""
    given, began, found = options(), time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.shapes:
            recipe = load_recipe(RECIPES[name], given.sets)
            found[name] = compare(
                small(recipe, Path(folder) / name) if given.tiny else recipe, given
            )
    command = " ".join(["python benchmarks/gpu_mfu.py", *sys.argv[1:]])
    values = {"shapes": found, "seconds": round(time.perf_counter() - began)}
    if given.tiny:
        print(json.dumps(values))
    else:
        publish("gpu_mfu", command, values)


if __name__ == "__main__":
    main()

"""Images per second and memory of a tower in native resolution, against padding and against tiles.

    python benchmarks/native.py

Two sets of images: the photographs that come with scikit-image, and a skewed mixture (lognormal sides and shapes). Per
way, a SigLIP2 tower runs forward and backward over batches of them in one order:

- `native`: as on the CPU, a call per grid; `row`: as on GPUs and in shards, one packed row per batch;
- `padded`: NaFlex's own form, every image of a batch padded to the longest, with a mask;
- `tiled`: up to 6 tiles of the tower's own size and one of the whole.

Seconds are those of the process on one thread, so that other work on the machine hardly counts; each way has a process
of its own, and memory is the peak above what it had before its first batch.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from publish import publish, spread
from transformers import Siglip2VisionConfig, Siglip2VisionModel

from sailvit.core.batch import Grids
from sailvit.core.layout import GridLimits, VisualLayout
from sailvit.core.tiles import joined
from sailvit.data.processing.images import load_image, tile_grid, tile_image
from sailvit.models.packing.attention import register_attention
from sailvit.models.packing.tower_attention import TOWER
from sailvit.models.towers.families import patch_pixels
from sailvit.models.towers.native_row import RowReader
from sailvit.models.towers.tower import Preprocessing, Tower

PATCH, MERGE, SIDE = 16, 2, 256
NATIVE = VisualLayout(PATCH * MERGE, 1, 0, "", native=GridLimits(4, 256, SIDE // (PATCH * MERGE)))
"""At most 1024 patches, as many as 512 x 512 px have."""
TILED = VisualLayout(SIDE, (SIDE // PATCH // MERGE) ** 2, 0, "", max_tiles=6)
WAYS = ("native", "row", "padded", "tiled")


def photographs() -> list[np.ndarray]:
    """scikit-image's pictures, in the order of their names."""
    folder = Path(skimage.__file__).parent / "data"
    return [
        load_image(path) for path in sorted(folder.glob("*")) if path.suffix in (".png", ".jpg")
    ]


def mixture(count: int = 32) -> list[np.ndarray]:
    """Noise of lognormal sides and shapes: half are under 300 px, few are large, some are strips."""
    generator = np.random.default_rng(0)
    side = np.exp(generator.normal(np.log(280), 0.5, count))
    shape = np.exp(generator.normal(0, 0.5, count))
    sizes = zip((side * shape).astype(int), (side / shape).astype(int), strict=True)
    return [
        generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in sizes
    ]


SETS: dict[str, Callable[[], list[np.ndarray]]] = {
    "photographs": photographs,
    "mixture": mixture,
}


def made(width: int, layers: int) -> Tower:
    """A tower with random weights."""
    register_attention()
    torch.manual_seed(0)
    config = Siglip2VisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        patch_size=PATCH,
        num_patches=(SIDE // PATCH) ** 2,
        vision_use_head=False,
        attn_implementation=TOWER,
    )
    return Tower(Siglip2VisionModel(config), Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3))


def batches(images: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """The images in one random order, the same for all ways."""
    order = np.random.default_rng(1).permutation(len(images)).tolist()
    for at in range(0, len(order), size):
        yield [images[index] for index in order[at : at + size]]


def padded(tower: Tower, tiles: torch.Tensor, grids: Grids) -> torch.Tensor:
    """Features of all images, each padded to the longest, with SigLIP2's mask."""
    ends, rows, shapes = 0, [], []
    for grid in grids:
        count = grid[0] * grid[1]
        picture = tower.normalised(joined(tiles[ends : ends + count], grid))
        rows.append(patch_pixels(picture, PATCH)["pixel_values"][0])
        shapes.append([grid[0] * MERGE, grid[1] * MERGE])
        ends += count
    longest = max(map(len, rows))
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    features = tower.model(
        pixel_values=values, pixel_attention_mask=mask, spatial_shapes=torch.tensor(shapes)
    ).last_hidden_state
    return features[mask.bool()]


def measure(way: str, name: str, width: int, layers: int, size: int) -> dict[str, float]:
    """One pass of one way over one set of images."""
    torch.set_num_threads(1)
    tower, images = made(width, layers), SETS[name]()
    if way == "row":
        tower.row = RowReader(tower)
    layout = TILED if way == "tiled" else NATIVE
    ready = []
    for batch in batches(images, size):
        cuts = torch.cat([tile_image(image, layout) for image in batch])
        grids = tuple(tile_grid(i.shape[1], i.shape[0], layout)[::-1] for i in batch)
        ready.append((cuts, grids))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, patches = time.process_time(), 0
    for cuts, grids in ready:
        seen = None if way == "tiled" else grids
        features = padded(tower, cuts, grids) if way == "padded" else tower(cuts, seen)
        features.square().mean().backward()
        patches += features.shape[:-1].numel()
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "images_per_s": len(images) / seconds,
        "peak_mib": peak / 1024,
        "patches_per_image": patches / len(images),
    }


def main() -> None:
    """Measure every way on both sets and write the table, whatever it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=128, help="width of the tower")
    parser.add_argument("--layers", type=int, default=3, help="blocks of the tower")
    parser.add_argument("--batch", type=int, default=8, help="images per batch")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each way")
    given = parser.parse_args()
    # One thread before processes are forked, which could not share more.
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in SETS:
        found[name] = {}
        for way in WAYS:
            rounds = []
            for _ in range(given.rounds):
                with ProcessPoolExecutor(1, mp_context=get_context("fork")) as alone:
                    shape = (given.width, given.layers, given.batch)
                    rounds.append(alone.submit(measure, way, name, *shape).result())
            found[name][way] = {key: spread([each[key] for each in rounds]) for key in rounds[0]}
        for way in WAYS:
            ratio = (
                found[name]["native"]["images_per_s"]["median"]
                / found[name][way]["images_per_s"]["median"]
            )
            found[name][way]["native_is_faster_by"] = round(ratio, 2)
    publish("native", "python benchmarks/native.py", {"batch": given.batch, "sets": found})


if __name__ == "__main__":
    main()

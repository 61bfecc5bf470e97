"""The demo's towers in every probe, and how fast features are extracted.

    python benchmarks/probe.py towers --demo runs/demo --joint runs/joint --page docs/probes.md
    python benchmarks/probe.py speed

Towers: the demo's base and refined one, each from its target run, and one refined all at once on as many samples, which
is trained into --joint where it is not there (15 minutes). Data, all offline: scikit-learn's digits, the demo's
world drawn with label maps and captions, and the photographs that scikit-image and scikit-learn install. Throughput:
ViT-Base of random weights at 224 px on JPEG files, features of all 12 blocks, against the bare tower on ready tiles.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import sklearn.datasets
import torch
from gradual_vs_joint import gradual, ways
from PIL import Image
from probe_table import write_table
from publish import publish, spread
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from sailvit.api.probing import probe
from sailvit.api.running import train_new
from sailvit.api.screen import Screen
from sailvit.api.towers import load_tower
from sailvit.core.run import RunFolder
from sailvit.evaluation.probes.drawn import WORLD
from sailvit.evaluation.probes.features.extraction import Extraction, extract, load_tile
from sailvit.evaluation.probes.features.layers import layered
from sailvit.evaluation.probes.running import Probing, best_layers
from sailvit.evaluation.probes.sets.class_folder import ImageFolder
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.models.towers.tower import Tower

SIDE = 64
"""Pixels of the demo's tile."""
BATCH, COUNT, ROUNDS = 16, 32, 3
"""Images of a batch and of a round, and rounds, of the measurement of speed."""


def write_digits(folder: Path) -> Path:
    """Scikit-learn's handwritten digits, every fourth for testing, dark on white."""
    found = sklearn.datasets.load_digits()
    for index, (pixels, digit) in enumerate(zip(found.images, found.target, strict=True)):
        place = folder / ("test" if index % 4 == 0 else "train") / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.uint8(255 - pixels * 255 / 16))
        picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place / f"{index:04d}.png")
    return folder


def photographs() -> Iterator[Path]:
    """The colour photographs that scikit-image and scikit-learn install."""
    names = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")
    data = Path(skimage.__file__).parent / "data"
    yield from (data / name for name in names if (data / name).is_file())
    yield from sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))


def write_crops(folder: Path, count: int, size: tuple[int, int], ending: str) -> Path:
    """Crops of the photographs, of width and height `size`, cut at random and enlarged."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = [Image.open(path).convert("RGB") for path in photographs()]
    for index in range(count):
        picture = pictures[index % len(pictures)]
        side = int(min(picture.size) * rng.uniform(0.3, 0.9))
        left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
        crop = picture.crop((left, top, left + side, top + side))
        crop.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:04d}.{ending}")
    return folder


def joint_tower(folder: Path) -> str:
    """The tower refined all at once, trained where it is not there."""
    run = RunFolder(folder)
    if not run.manifest.is_file():
        recipe = ways(gradual(0, 1.0))["joint_samples"]
        assert recipe is not None
        train_new(recipe, run, Screen())
    return str(folder)


def speed(folder: Path) -> dict[str, Any]:
    """Images per second of extraction and of the bare tower, in turns."""
    torch.manual_seed(0)
    ViTModel(ViTConfig(), add_pooling_layer=False).save_pretrained(folder / "vit")
    ViTImageProcessor().save_pretrained(folder / "vit")
    tower = load_tower(str(folder / "vit")).tower
    images = ImageFolder(write_crops(folder / "crops", COUNT, (500, 375), "jpg"))
    tiles = [load_tile(images, "crops", tower, place) for place in range(COUNT)]
    ready = torch.cat([tile for tile in tiles if isinstance(tile, torch.Tensor)])
    every, shown = layered(tower, tuple(range(1, 13))), []
    for number in range(ROUNDS + 1):
        settings = Extraction(folder / f"cache-{number}", tuple(range(1, 13)), batch=BATCH)
        bare = _seconds(lambda: _run(tower, ready))
        whole = _seconds(lambda how=settings: extract(every, images, "crops", how, key="vit"))
        # The first round warms caches and kernels.
        shown += [(bare, whole)] if number else []
    shares = {
        name: spread([bare[at] / whole[at] for bare, whole in shown])
        for at, name in enumerate(("wall", "processor"))
    }
    wall = statistics.median(bare[0] for bare, _ in shown)
    return {"share_of_bare": shares, "bare_images_per_second": round(COUNT / wall, 2)}


@torch.inference_mode()
def _run(tower: Tower, tiles: torch.Tensor) -> None:
    for at in range(0, COUNT, BATCH):
        tower(tiles[at : at + BATCH].to(tower.mean.device)).cpu()


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock, and of all this process's threads."""
    began = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def towers(given: argparse.Namespace) -> None:
    """Probe the demo's towers, and write results and table."""
    joint = RunFolder(Path(joint_tower(given.joint)))
    (stage,) = sorted((joint.path / "stages").iterdir())
    compared = {
        "base": f"{given.demo}/target/base",
        "refined": f"{given.demo}/target/refined",
        "all at once": str(stage / "tower"),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = [
            write_digits(folder / "digits"),
            Path(WORLD),
            write_crops(folder / "photographs", 100, (SIDE, SIDE), "png"),
        ]
        began = time.perf_counter()
        report = probe(compared, data, Probing(folder / "cache"), seen=Progress())
        seconds = round(time.perf_counter() - began)
    command = "python benchmarks/probe.py towers --demo runs/demo --joint runs/joint"
    rows = [
        each.row(name)
        for name, probed in report.towers.items()
        for each in probed.outcomes
        if each.main
    ]
    words = [
        {"other": each.other, "set": each.set, "probe": each.probe, "metric": each.metric}
        | {"word": each.word}
        for each in report.differences
    ]
    best = {
        # Layers are chosen where a probe runs on several.
        name: {probe: layer for probe, layer in best_layers(probed.outcomes).items() if layer > 0}
        for name, probed in report.towers.items()
    }
    found = {"seconds": seconds, "rows": rows, "differences": words, "best layers": best}
    publish("probe", command, found)
    if given.page is not None:
        write_table(given.page, found)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked = parser.add_subparsers(dest="what", required=True)
    of_towers = asked.add_parser("towers", help="the demo's towers in every probe")
    of_towers.add_argument("--demo", required=True, help="the demo's run")
    of_towers.add_argument("--joint", type=Path, required=True, help="run refined all at once")
    of_towers.add_argument("--page", type=Path, help="page whose table is written anew")
    asked.add_parser("speed", help="images per second of extraction and of the bare tower")
    given = parser.parse_args()
    quiet_libraries()
    if given.what == "towers":
        towers(given)
        return
    with tempfile.TemporaryDirectory() as name:
        publish("probe_speed", "python benchmarks/probe.py speed", speed(Path(name)))


class Progress:
    """Prints what is done, a line when it ends."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Print one line for the last of `total`."""
        if done == total:
            print(f"{time.strftime('%H:%M:%S')} {what}: {total}", flush=True)


if __name__ == "__main__":
    main()

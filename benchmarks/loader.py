"""The loader against the machine: samples per second beside bare decoding, its own cost, memory, and waiting.

python benchmarks/loader.py     (about five minutes)
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from publish import publish
from torch.utils.data import DataLoader

from sailvit.core.layout import VisualLayout
from sailvit.core.recipe import SourceConfig
from sailvit.core.run import RunFolder, read_lines
from sailvit.data.lengths.measuring import measure
from sailvit.data.loading.loader import Loader
from sailvit.data.processing.images import load_image, tile_image
from sailvit.data.processing.processor import Processor
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.data.sources import open_source
from sailvit.dataprep.prepare.preparing import PrepareConfig, prepare
from sailvit.models.loading.world_tokenizer import IMAGE, build_tokenizer
from sailvit.recipes.loader import load_recipe
from sailvit.training.trainer import Trainer

WORKERS = 2
SETS = {
    "small": (
        (640, 480),
        (480, 640),
        (500, 375),
        (375, 500),
        (400, 300),
        (300, 400),
        (336, 336),
        (800, 160),
        (160, 800),
    ),
    "mixed": (
        (336, 336),
        (500, 375),
        (640, 480),
        (480, 640),
        (1024, 768),
        (768, 1024),
        (1280, 960),
        (1920, 1080),
    ),
}
"""Sizes that take turns: 0.18 Mpx as in caption sets, and 0.7 Mpx on average as where photographs and pages meet."""
IMAGES = 1000
"""Images of a set; each pass reads all of them."""
PASSES = 3
"""Passes per trial."""
TRIALS = 9
SIZE, TOKENS, PACK, MICRO, GLOBAL = 448, 256, 2048, 2, 4


def write_images(folder: Path, sizes: Sequence[tuple[int, int]]) -> None:
    """JPEGs of photograph-like detail with short conversations, as LLaVA keeps them; every tenth is new."""
    folder.mkdir()
    lines, files = (
        [],
        [_photograph(*sizes[number % len(sizes)], number) for number in range(IMAGES // 10)],
    )
    for number in range(IMAGES):
        (folder / f"{number}.jpg").write_bytes(files[number % len(files)])
        turns = [
            {"from": "human", "value": "<image>\ndescribe everything"},
            {"from": "gpt", "value": "red circle"},
        ]
        lines.append(
            json.dumps({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
        )
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


def _photograph(width: int, height: int, seed: int) -> bytes:
    source = np.random.default_rng(seed)
    coarse = Image.fromarray(
        source.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), dtype=np.uint8)
    )
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    pixels = (smooth + source.integers(-5, 6, smooth.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return file.getvalue()


class Setting:
    """Prepared tars, what reads them, and a loader over them."""

    def __init__(self, folder: Path, cache: Path) -> None:
        tokenizer = build_tokenizer()
        layout = VisualLayout(SIZE, TOKENS, tokenizer.convert_tokens_to_ids(IMAGE), IMAGE)
        self.processor = Processor(tokenizer, layout, PACK)
        raw = SourceConfig(format="llava", path=str(folder / "rows.jsonl"))
        out = folder / "tars"
        prepare(
            {"set": open_source("set", raw, folder)},
            out,
            config=PrepareConfig(shard_samples=300),
            processor=self.processor,
        )
        self.source = open_source("set", SourceConfig(format="indexed", path=str(out)), folder)
        self.costs = measure("set", self.source, self.processor, cache=cache)

    def loader(self, samples: int, workers: int = WORKERS) -> Loader:
        """A loader of so many samples."""
        shape = {
            "sequence": PACK,
            "global_batch": GLOBAL,
            "micro_batch": MICRO,
            "samples": samples,
            "workers": workers,
        }
        loader_config = LoaderConfig(name="benchmark", seed=1, shares={"set": 1}, **shape)
        return Loader({"set": self.source}, {"set": self.costs}, self.processor, loader_config)


def processor_seconds() -> float:
    """Seconds of processor that this process and its children have used so far."""
    family = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
    fields = [
        Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in family
    ]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def loaded(loader: Loader) -> tuple[float, float]:
    """Samples per second and milliseconds of processor per sample, over all processes, from the first step on."""
    steps = iter(loader)
    next(steps)
    began, used, spent, seen, count = time.perf_counter(), processor_seconds(), 0.0, 0, 0
    for number, step in enumerate(steps):
        count += sum(len(batch.sample_ids) for batch in step.batches)
        # Before the workers end, and not so often that looking costs something.
        if number % 16 == 0:
            spent, seen = processor_seconds() - used, count
    return count / (time.perf_counter() - began), 1e3 * spent / seen


def decoded(
    paths: Sequence[Path], layout: VisualLayout, processes: int = WORKERS
) -> tuple[float, float]:
    """The same of bare processes that read, decode and resize image files, without handing anything over."""
    context = multiprocessing.get_context("fork")
    gate, spent = context.Barrier(processes + 1), context.Queue()

    def work(share: Sequence[Path]) -> None:
        torch.set_num_threads(1)
        gate.wait()
        began = time.process_time()
        for path in share:
            tile_image(load_image(path.read_bytes()), layout)
        spent.put(time.process_time() - began)
        gate.wait()

    pool = [
        context.Process(target=work, args=(paths[number::processes],))
        for number in range(processes)
    ]
    for process in pool:
        process.start()
    gate.wait()
    began = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - began
    used = sum(spent.get() for _ in pool)
    for process in pool:
        process.join()
    return len(paths) / seconds, 1e3 * used / len(paths)


class Plain(torch.utils.data.Dataset[torch.Tensor]):
    """What a first loader looks like: image files, Pillow, one tensor each."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> torch.Tensor:
        """uint8[H, W, C] of one image."""
        with Image.open(io.BytesIO(self.paths[position].read_bytes())) as image:
            small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            return torch.from_numpy(np.asarray(small).copy())


def plain(paths: Sequence[Path]) -> float:
    """Images per second of a plain DataLoader, shuffled, in batches of 16, from the first batch on."""
    batches = iter(DataLoader(Plain(paths), 16, shuffle=True, num_workers=WORKERS))
    next(batches)
    began = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    return count / (time.perf_counter() - began)


def resident(steps: int, loader: Loader) -> list[float]:
    """Megabytes that this process and its workers have to themselves, at tenths of so many steps."""
    found = []
    for number, _ in enumerate(loader, 1):
        if number % max(1, steps // 10) == 0:
            family = [
                os.getpid(),
                *(child.pid for child in multiprocessing.active_children() if child.pid),
            ]
            found.append(round(sum(map(_private, family)) / 1e6, 1))
    return found


def _private(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private"))


def waiting(loader: Loader, seconds: float) -> float:
    """Share of time spent waiting when every step takes so long elsewhere, as on an accelerator."""
    began, waited, asked = 0.0, 0.0, 0.0
    for _ in loader:
        now = time.perf_counter()
        began, waited = (began, waited + now - asked) if began else (now, 0.0)
        time.sleep(seconds)
        asked = time.perf_counter()
    return waited / (time.perf_counter() - began)


def demo_waiting(folder: Path) -> dict[str, list[float]]:
    """Share of step time that the demo's stages wait for data, their first steps left out, in each of three runs."""
    runs = [_demo_run(RunFolder(folder / f"demo-{number}")) for number in range(3)]
    return {name: [round(run[name], 5) for run in runs] for name in runs[0]}


def _demo_run(run: RunFolder) -> dict[str, float]:
    lengths = [
        f"stages.{index}.length.samples={samples}"
        for index, samples in enumerate((2000, 2000, 2000))
    ]
    torch.set_num_threads(1)
    Trainer(load_recipe("demo", [*lengths, f"workers={WORKERS}"]), run).run()
    return dict(_shares(run))


def _shares(run: RunFolder) -> Iterator[tuple[str, float]]:
    lines = [line for line in read_lines(run.metrics) if line["step"] > 2]
    for name in dict.fromkeys(line["stage"] for line in lines):
        own = [line for line in lines if line["stage"] == name]
        yield name, sum(line["wait"] for line in own) / sum(line["seconds"] for line in own)


def compared(setting: Setting, paths: Sequence[Path]) -> dict[str, Any]:
    """Loader, bare decoding and the plain loader in turn, so that a busy machine is busy for all."""
    rows = []
    for _ in range(TRIALS):
        (rate, ms), (bare, bare_ms) = (
            loaded(setting.loader(PASSES * IMAGES)),
            decoded([*paths] * PASSES, setting.processor.layout),
        )
        rows.append(
            {"loader": rate, "bare": bare, "plain": plain(paths), "ms": ms, "bare_ms": bare_ms}
        )
        print({key: round(value, 3) for key, value in rows[-1].items()})
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {
        "samples_per_s": round(medians["loader"]),
        "bare_decoding_per_s": round(medians["bare"]),
        "ratio": round(statistics.median(row["loader"] / row["bare"] for row in rows), 3),
        "plain_dataloader_pillow_per_s": round(medians["plain"]),
        "own_cpu_ms_per_sample": round(
            statistics.median(row["ms"] - row["bare_ms"] for row in rows), 3
        ),
        "decode_cpu_ms_per_sample": round(medians["bare_ms"], 3),
    }


def main() -> None:
    """Measure on images made here, in a folder that is removed."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        os.environ.setdefault("SAILVIT_CACHE", f"{name}/cache")
        values: dict[str, Any] = {}
        for kind, sizes in SETS.items():
            folder = Path(name) / kind
            write_images(folder, sizes)
            setting = Setting(folder, Path(name) / "cache")
            mean = sum(width * height for width, height in sizes) / len(sizes) / 1e6
            values[kind] = {
                "megapixels": round(mean, 2),
                **compared(setting, sorted(folder.glob("*.jpg"))),
            }
        per_step = GLOBAL * (PACK // (TOKENS + 8))
        steps = 8 * IMAGES // per_step
        values["private_mb"] = resident(steps, setting.loader(8 * IMAGES))
        pace = per_step / (0.7 * values["mixed"]["samples_per_s"])
        values["waiting_at_70_percent_of_its_rate"] = round(
            waiting(setting.loader(2 * IMAGES), pace), 4
        )
        values["waiting_of_the_demo"] = demo_waiting(Path(name))
    setup = {"workers": WORKERS, "images": IMAGES, "sizes": SETS, "tile": SIZE, "trials": TRIALS}
    publish("loader", "python benchmarks/loader.py", {**setup, **values})


if __name__ == "__main__":
    main()

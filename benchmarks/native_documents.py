"""What does the aspect ratio do for reading? The native demo in its three modes, from the same weights and records.

    python benchmarks/native_documents.py

Every mode trains the recipe native-demo on the same slips of paper, then reads 400 slips of another seed. Per mode: the
share that is read exactly, the mean number of visual tokens of an image, and the seconds of training.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from publish import publish

from sailvit.api.running import train_new
from sailvit.api.screen import Screen
from sailvit.core.run import RunFolder, read_lines
from sailvit.data.processing.images import tile_count
from sailvit.inference.answers import answer
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.recipes.loader import load_recipe
from sailvit.synthetic.documents.source import DocumentsOptions, DocumentsSource

MODES = {
    "native": (),
    "tiled": ("model.image.mode=tiled", "model.image.max_tiles=6"),
    "fixed": ("model.image.mode=fixed",),
}
"""Overrides of the recipe that make each mode."""


def measure(mode: str, samples: int, asked: int, folder: Path) -> dict[str, Any]:
    """One mode trained and asked."""
    lengths = [f"stages.0.length.samples={samples // 8}", f"stages.1.length.samples={samples}"]
    recipe = load_recipe("native-demo", [*MODES[mode], *lengths])
    run = RunFolder(folder / mode)
    bundle = train_new(recipe, run, Screen())
    options = DocumentsOptions(size=asked, kinds={"slip": 1.0}, transcriptions=0, worn=0, seed=7)
    source = DocumentsSource(options)
    records = [source[position] for position in range(asked)]
    right = [
        said == record.turns[-1].text
        for said, record in zip(answer(bundle, records), records, strict=True)
    ]
    shapes = [record.images[0].size for record in records]  # type: ignore[union-attr]
    long = [max(shape) > 2.5 * min(shape) for shape in shapes]
    layout = bundle.layout
    tokens = [tile_count(record.images[0], layout) * layout.tokens_per_tile for record in records]
    steps = list(read_lines(run.metrics))
    return {
        "exact": round(sum(right) / asked, 3),
        "exact_of_long_ones": round(
            sum(r for r, is_long in zip(right, long, strict=True) if is_long) / sum(long), 3
        ),
        "visual_tokens": round(sum(tokens) / asked, 1),
        "steps": len(steps),
        "seconds": round(sum(step["seconds"] for step in steps), 1),
    }


def main() -> None:
    """Train and ask every mode, and write the table, whatever it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=24000, help="samples of the second stage")
    parser.add_argument("--asked", type=int, default=400, help="slips that are read afterwards")
    given = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        found = {mode: measure(mode, given.samples, given.asked, Path(folder)) for mode in MODES}
    publish(
        "native_documents",
        f"python benchmarks/native_documents.py --samples {given.samples} --asked {given.asked}",
        {"modes": found},
    )


if __name__ == "__main__":
    main()

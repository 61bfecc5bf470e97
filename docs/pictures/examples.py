"""The pictures of three examples: `python docs/pictures/examples.py RUN EXPORT`.

Wants a run of `sailvit demo` and what `sailvit export RUN --to hf` made of it. The pictures that the models see
are drawn anew.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from sailvit.synthetic.world import rendering, scenes

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))
DRAWN = {
    "objects": scenes.draw_objects,
    "crowd": scenes.draw_crowd,
    "writing": scenes.draw_writing,
    "chart": scenes.draw_chart,
}
EACH = 12
"""Pictures of each kind to search through."""


def main() -> None:
    """Write the pictures beside this file."""
    import chat_with_export
    import pca_maps
    import search

    if len(sys.argv) != 3:
        sys.exit("usage: python docs/pictures/examples.py RUN EXPORT")
    run, export = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(5)
        for name, draw in DRAWN.items():
            for index in range(EACH):
                pixels = rendering.draw(draw(rng), rng)
                Image.fromarray(pixels).save(Path(folder) / f"{name}-{index}.png")
        shown = [f"{folder}/{name}.png" for name in ("objects-1", "crowd-2", "writing-0")]
        pca_maps.main(shown, "sailvit:world/tower", run, HERE / "pca-maps.png")
        search.main(f"{folder}/chart-1.png", folder, run, 5, HERE / "found.png")
        asked = ["describe everything", "which colour is at the bottom right ?"]
        shown = f"{folder}/objects-0.png"
        chat_with_export.main(export, shown, asked, 24, HERE / "dialogue.png")


if __name__ == "__main__":
    main()

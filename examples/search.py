"""Find the pictures of a folder that a tower finds most like a given one.

python examples/search.py cat.jpg photos --tower runs/mine --count 5 --out found.png

A picture's feature is the mean of its patch features, less the mean over the folder: what all pictures share says
nothing about any of them. Pictures are compared by cosine similarity.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

import sailvit

KINDS = {".jpg", ".jpeg", ".png", ".webp"}


def pooled(tower, paths, batch=32):
    """The mean patch feature of each picture, float[I, D], a batch at a time to spare memory."""
    parts = [tower(paths[at : at + batch]).mean(dim=1) for at in range(0, len(paths), batch)]
    return torch.cat(parts)


def main(query, folder, tower, count=5, out="found.png"):
    asked = Path(query)
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in KINDS]
    paths = [path for path in paths if path.resolve() != asked.resolve()]
    if not paths:
        raise SystemExit(f"{folder} has no other pictures; expected {', '.join(sorted(KINDS))}")
    features = pooled(sailvit.load_tower(tower), [asked, *paths])
    features = torch.nn.functional.normalize(features - features[1:].mean(dim=0), dim=1)
    best = (features[1:] @ features[0]).topk(min(count, len(paths)))
    found = [
        (paths[at], value) for value, at in zip(*(each.tolist() for each in best), strict=True)
    ]

    shown = [(asked, "asked for"), *((path, f"{value:.2f}") for path, value in found)]
    columns = min(len(shown), 6)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2 * columns, 2.5 * rows), layout="constrained")
    for place, (path, title) in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1, xticks=[], yticks=[])
        axes.imshow(Image.open(path).convert("RGB"))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(path.name[-28:], fontsize=8)
        axes.spines[:].set(visible=place == 0, linewidth=3, color="tab:orange")
    figure.savefig(out, dpi=110)
    for path, value in found:
        print(f"{value:6.3f}  {path}")
    return found


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("query", help="the picture to look for")
    options.add_argument("folder", help="where to look, with the folders inside")
    options.add_argument("--tower", required=True, help="a run, a stage, a tower or hub id")
    options.add_argument("--count", type=int, default=5, help="how many to show")
    options.add_argument("--out", default="found.png", help="the PNG to write")
    main(**vars(options.parse_args()))

"""Patch features of a base and a refined tower as colours, side by side.

python examples/pca_maps.py cat.jpg street.jpg --base apple/aimv2-large-patch14-224 --refined runs/mine --out maps.png

Each tower has a PCA of its own, fitted on the patches of all images together, so colours can be compared from image to
image. The refined tower's three numbers are then turned as near to the base's as a rotation brings them, so that one
colour means about the same in both columns.
"""

import argparse

import torch
from matplotlib.figure import Figure
from PIL import Image

import sailvit


def scores(features):
    """The first three principal components float[I * P, 3], of variance 1, and their share of all variance."""
    rows = features.flatten(0, 1).double().cpu()
    left, sizes, _ = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    return left[:, :3] * len(rows) ** 0.5, float((sizes[:3] ** 2).sum() / (sizes**2).sum())


def turned(refined, base):
    """Refined scores after the rotation that brings them nearest to the base's (Procrustes)."""
    left, _, right = torch.linalg.svd(refined.T @ base)
    return refined @ left @ right


def main(images, base, refined, out):
    towers = {"base": sailvit.load_tower(base), "refined": sailvit.load_tower(refined)}
    if len({tower.grid for tower in towers.values()}) > 1:
        raise SystemExit("the towers have different grids of patches; expected the same")
    (first, first_share), (second, share) = (scores(tower(images)) for tower in towers.values())
    grid = (len(images), *towers["base"].grid, 3)
    # Two and a half standard deviations each way fill the range of a colour.
    maps = [(0.5 + each / 5).clamp(0, 1).reshape(grid) for each in (first, turned(second, first))]
    titles = (
        "picture",
        f"base\n{first_share:.0%} of variance",
        f"refined\n{share:.0%} of variance",
    )
    figure = Figure(figsize=(6.6, 2.2 * len(images) + 0.5), layout="constrained")
    side = towers["base"].size
    for row, path in enumerate(images):
        # The tower sees each image as one square, so it is shown as that.
        picture = Image.open(path).convert("RGB").resize((side, side))
        for column, shown in enumerate((picture, *(each[row] for each in maps))):
            axes = figure.add_subplot(len(images), 3, 3 * row + column + 1)
            axes.imshow(shown, interpolation="nearest")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(titles[column], fontsize=10)
    figure.savefig(out, dpi=110)
    print(f"{out}: {len(images)} images, {grid[1]} x {grid[2]} patches each")
    return torch.stack(maps)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("images", nargs="+", help="pictures to show, a row each")
    options.add_argument("--base", required=True, help="a tower: folder or hub id")
    options.add_argument("--refined", required=True, help="a run, a stage or a tower")
    options.add_argument("--out", default="pca-maps.png", help="the PNG to write")
    main(**vars(options.parse_args()))

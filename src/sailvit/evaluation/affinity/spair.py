"""Pairs of pictures with points in common: those of SPair-71k, or parts of one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sailvit.core.errors import DataError, RunError
from sailvit.core.run import read_json
from sailvit.core.seeding import numpy_generator
from sailvit.data.processing.decoding import Pixels
from sailvit.data.processing.images import load_image
from sailvit.evaluation.affinity.law import KeyPoints, patch_centres
from sailvit.evaluation.affinity.pictures import Picture, crop_pair

PicturePair = tuple[Pixels, Pixels, KeyPoints]
"""Two pictures, and points of the first with where they are in the second."""


def annotated_pairs(folder: Path, *, seed: int = 0, count: int | None = None) -> list[Path]:
    """Files of test pairs in SPair-71k's own layout, `count` of them at random.

    Raises:
        DataError: the folder has none.
    """
    found = sorted((folder / "PairAnnotation" / "test").glob("*.json"))
    if not found:
        raise DataError(
            f"{folder} has no PairAnnotation/test/*.json; give the folder of SPair-71k as it was"
            " unpacked"
        )
    order = numpy_generator(seed, "affinity", "spair").permutation(len(found))[:count]
    return [found[at] for at in sorted(order.tolist())]


def read_pair(folder: Path, annotation: Path) -> PicturePair:
    """One pair of SPair-71k; the reach of a point follows the box of the object."""
    try:
        facts = read_json(annotation)
        places = folder / "JPEGImages" / facts["category"]
        source, target = (load_image(places / facts[f"{side}_imname"]) for side in ("src", "trg"))
        left, top, right, bottom = facts["trg_bndbox"]
        points = [np.array(facts[f"{side}_kps"], dtype=np.float64) for side in ("src", "trg")]
    except (RunError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{annotation} is no pair of SPair-71k ({error}); unpack the set again"
        ) from error
    sizes = [np.array((image.shape[1], image.shape[0]), dtype=float) for image in (source, target)]
    size = (float(sizes[1][0]), float(sizes[1][1]))
    # The benchmark's own measure: the larger side of the object's box in the target picture.
    extent = float(max(right - left, bottom - top))
    return source, target, KeyPoints(points[0] / sizes[0], points[1] / sizes[1], size, extent)


def cropped_pairs(
    pictures: Sequence[Picture], grid: tuple[int, int], *, seed: int = 0
) -> Iterator[PicturePair]:
    """A random part of each picture and the picture: where each patch of the part is, is known."""
    centres = patch_centres(grid)
    for picture in pictures:
        # By name: a picture keeps its part, whichever others are measured with it.
        rng = numpy_generator(seed, "affinity", "crop", picture.name)
        part, (left, top, width, height) = crop_pair(picture.pixels, rng)
        yield part, picture.pixels, KeyPoints(centres, centres * (width, height) + (left, top))

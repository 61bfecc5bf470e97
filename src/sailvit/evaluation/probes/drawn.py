"""The demo's world as files for probes: writings by their first glyph, and scenes with exact label
maps. Test sets hold scenes that no training of the demo draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path

from sailvit.core.atomic import whole_file
from sailvit.core.disk import explained
from sailvit.core.records import Record
from sailvit.core.run import write_json
from sailvit.data.processing.images import encoded
from sailvit.data.processing.label_maps import encoded_label_map
from sailvit.evaluation.probes.sets.captions import CaptionSet, caption_set
from sailvit.synthetic.world.rendering import MAP_CLASSES, draw_labelled
from sailvit.synthetic.world.scenes import Split, Writing
from sailvit.synthetic.world.source import Picture, WorldSource

WORLD = "sailvit:world"
"""What stands for these data."""
_SPLITS: dict[Split, str] = {"train": "train", "held_out": "test"}
_MARK = "world.json"
_MAPPED = {"colour": 3.0, "count": 1.0, "ocr": 1.0, "height": 1.0}
"""Tasks whose scenes have label maps, and their shares."""


def write_world(folder: Path, train: int, test: int, seed: int = 0) -> list[Path]:
    """The folders of the data below `folder`, drawn where they are not there: `glyphs`, with a class
    for each first glyph, and `maps`.

    Args:
        folder: Where they are written; a folder for each size and seed.
        train: Pictures to train heads on, of each kind.
        test: Pictures to test on.
        seed: Seed of all that is drawn.
    """
    place = folder / f"world-{train}-{test}-{seed}"
    _write_once(place, (train, test), seed, {"ocr": _glyph_files, "maps": _map_files})
    return [place / "glyphs", place / "maps"]


def write_glyphs(folder: Path, train: int, test: int, seed: int = 0) -> Path:
    """The folder of `glyphs` alone, equal to those of `write_world`, without the time of maps."""
    place = folder / f"glyphs-{train}-{test}-{seed}"
    _write_once(place, (train, test), seed, {"ocr": _glyph_files})
    return place / "glyphs"


def world_captions(count: int, seed: int = 0) -> CaptionSet:
    """Held-out scenes with their full descriptions."""
    return caption_set("world", WorldSource("held_out", "fine", count, seed), count, seed)


_Files = Iterator[tuple[str, bytes]]
_Writer = Callable[[str, int, Record], _Files]


def _write_once(
    place: Path, sizes: tuple[int, int], seed: int, writers: Mapping[str, _Writer]
) -> None:
    """Write what is not there yet: scenes of each key's tasks, by its writer."""
    if (place / _MARK).is_file():
        return
    with explained(str(place), "start again"):
        for (split, name), count in zip(_SPLITS.items(), sizes, strict=True):
            for key, writer in writers.items():
                tasks = _MAPPED if key == "maps" else key
                _write(place, name, WorldSource(split, tasks, count, seed), writer)
        # Last: where it is, all else is.
        write_json(place / _MARK, {"maps": dict(enumerate(MAP_CLASSES))})


def _write(
    place: Path,
    name: str,
    source: WorldSource,
    files: _Writer,
) -> None:
    for position in range(len(source)):
        for path, content in files(name, position, source[position]):
            with whole_file(place / path) as draft:
                draft.write_bytes(content)


def _glyph_files(name: str, position: int, record: Record) -> _Files:
    picture = record.images[0]
    assert isinstance(picture, Picture)
    assert isinstance(picture.scene, Writing)
    first = picture.scene.glyphs[0]
    yield f"glyphs/{name}/{first}/{position:05d}.png", encoded(picture.pixels())


def _map_files(name: str, position: int, record: Record) -> _Files:
    picture = record.images[0]
    assert isinstance(picture, Picture)
    # A copy of the generator, as drawing moves it on: asked for again, the picture is the same.
    pixels, labels = draw_labelled(picture.scene, deepcopy(picture.rng))
    yield f"maps/images/{name}/{position:05d}.png", encoded(pixels)
    yield f"maps/labels/{name}/{position:05d}.png", encoded_label_map(labels)

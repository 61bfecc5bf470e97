"""What an export is asked, and what the model in memory gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from sailvit.core.errors import ModelError
from sailvit.core.run import write_json
from sailvit.core.seeding import numpy_generator
from sailvit.data.processing.images import load_image, tile_image
from sailvit.interop.export.trained import Trained
from sailvit.models.towers.families import patch_pixels, same_order
from sailvit.models.towers.tower import Tower

LONGEST = 8
"""Tokens of a greedy answer that are compared."""
_BLURRED = 12
"""Side of the noise that images are blown up from, in pixels."""
_UNANSWERED = (
    "transformers' generate gives other answers with {name} than reading the whole text for every"
    " token, or none, when prompts are embeddings, as images are: whoever loads the export would"
    " get them. Export the tower alone (--to tower), or use the run itself, which answers rightly"
)
_WORDS = "What colour is the large circle left of the square?"


@dataclass(frozen=True)
class Question:
    """A conversation about images of given sizes."""

    name: str
    """What reports call it."""
    messages: tuple[dict[str, Any], ...]
    """Chat messages; a piece of type image stands for the next image."""
    sizes: tuple[tuple[int, int], ...] = ()
    """Width and height of each image, in pixels."""


@dataclass(frozen=True)
class Watching:
    """How a layout is reloaded, and where its parts are."""

    kind: str = "model"
    """`tower`, or `model` for a whole one."""
    remote: bool = False
    """Whether the folder holds code of its own."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Paths of the tower (`features`) and the connector (`visual`) in the reloaded model."""


def questions(trained: Trained) -> list[Question]:
    """Text alone, one image, two images over several turns; with tiles where the model cuts
    images.
    """
    size = trained.bundle.layout.squared.tile_size
    text, image = {"type": "text", "text": _WORDS}, {"type": "image"}
    follows = {"type": "text", "text": "And which of them is red?"}
    said = {"type": "text", "text": "It is blue."}
    return [
        # Text alone shows errors of the language without any of the tower's.
        Question("text", (_user(text),)),
        Question("one image", (_user(image, text),), ((size, size),)),
        Question(
            "two images",
            (_user(image, text, image), {"role": "assistant", "content": [said]}, _user(follows)),
            # Odd sizes, larger and smaller than a tile: sides that do not divide show how each
            # library rounds.
            ((size * 3 + 5, size + 3), (size // 2, size * 2 - 1)),
        ),
    ]


def takes_patches(tower: Tower) -> bool:
    """Whether a tower is given patches, which image processors cut of images in their own shape."""
    return tower.family.pixels is patch_pixels or tower.family.raster is not same_order


def _user(*pieces: dict[str, str]) -> dict[str, Any]:
    return {"role": "user", "content": list(pieces)}


@torch.no_grad()
def pose(trained: Trained, watching: Watching, work: Path) -> None:
    """Write the questions, their images, and what the model in memory gives, to `work`."""
    asked = questions(trained)
    images = {each.name: _draw(each, work, deep=watching.remote) for each in asked}
    cases = [
        {
            "name": each.name,
            "messages": list(each.messages),
            "images": [str(path) for path in images[each.name]],
        }
        for each in asked
    ]
    if watching.kind == "tower":
        paths = [path for each in asked for path in images[each.name]]
        if takes_patches(trained.bundle.mllm.tower):
            # The only processors that give patches keep the aspect ratio; training's tiles are
            # square. The card says so.
            paths = paths[:1]
        cases = [{"name": f"image {n}", "images": [str(p)]} for n, p in enumerate(paths)]
        expected, batched = _features(trained, paths), False
    else:
        expected, batched = _answers(trained, asked, images)
    values = {
        "kind": watching.kind,
        "remote": watching.remote,
        "modules": dict(watching.modules),
        "longest": LONGEST,
        "batched": batched,
        "interpolate": trained.interpolates,
        "ordered": trained.ordered,
        "cases": cases,
    }
    write_json(work / "cases.json", values)
    kept = {name: tensor.cpu().contiguous() for name, tensor in expected.items()}
    save_file(kept, work / "expected.safetensors")


def _draw(question: Question, work: Path, *, deep: bool) -> list[Path]:
    """Images of blurred noise as PNG files; with `deep` one of several is half transparent and
    one of 16 bits, which image processors of our own read as training does.
    """
    generator, paths = numpy_generator(0, f"export/{question.name}"), []
    for number, size in enumerate(question.sizes):
        # Far from black and white and smooth, as photographs mostly are: where a filter
        # overshoots, libraries cut at different moments and differ by several levels.
        noise = generator.integers(64, 192, (_BLURRED, _BLURRED, 3), dtype=np.uint8)
        paths.append(work / f"{question.name} {number}.png")
        image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        if deep and len(question.sizes) > 1:
            image = _glass(image) if number == 0 else _deep_grey(image)
        image.save(paths[-1])
    return paths


def _glass(image: Image.Image) -> Image.Image:
    """The image, seen through itself."""
    made = image.copy()
    made.putalpha(image.getchannel("R"))
    return made


def _deep_grey(image: Image.Image) -> Image.Image:
    # Not 257, so that 16 bits do not come out as bytes without a rest.
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 251)


def _features(trained: Trained, paths: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Normalised pixels and all the tower's tokens of each image, which becomes one tile."""
    tower, layout = trained.bundle.mllm.tower, trained.bundle.layout.squared
    expected = {}
    for number, path in enumerate(paths):
        tiles = tile_image(load_image(path), layout).to(trained.bundle.mllm.device)
        expected[f"image {number}.pixels"] = tower.given(tiles)
        expected[f"image {number}.features"] = trained.last_state(tiles)
    return expected


def _answers(
    trained: Trained, asked: Sequence[Question], images: Mapping[str, Sequence[Path]]
) -> tuple[dict[str, torch.Tensor], bool]:
    """What the model gives for each question, and whether its answers may be padded."""
    model, mllm = trained.model, trained.bundle.mllm
    expected: dict[str, torch.Tensor] = {}
    longest = 0
    for each in asked:
        given = model.processor(each.messages, images[each.name])
        tokens = given["input_ids"].to(mllm.device)
        longest = max(longest, tokens.shape[1])
        tiles = given["pixel_values"].to(mllm.device)
        shapes = given.get("image_grids")
        grids = None if shapes is None else tuple((rows, cols) for rows, cols in shapes.tolist())
        expected[f"{each.name}.tokens"] = tokens[0]
        if len(tiles):
            expected[f"{each.name}.pixels"] = mllm.tower.normalised(tiles)
            expected[f"{each.name}.features"] = trained.last_state(tiles, grids)
            expected[f"{each.name}.visual"] = mllm.visual(tiles, grids=grids)
        rows = mllm.embed(tokens[0], mllm.visual(tiles, grids=grids))[None]
        with model.generation.generating(tokens.shape[1]) as how:
            # A user's `generate` has the cache on, so an answer that is only right without it is
            # refused.
            if not how.cached:
                raise ModelError(_UNANSWERED.format(name=type(mllm.language).__name__))
            logits = mllm.language(inputs_embeds=rows, use_cache=False).logits[0]
        expected[f"{each.name}.logits"] = logits
        made = model.generate(**given, max_new_tokens=LONGEST)
        expected[f"{each.name}.answer"] = made[0]
    return expected, how.padded and how.cached

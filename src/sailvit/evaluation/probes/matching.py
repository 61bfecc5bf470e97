"""Images and texts in one space: zero-shot classes and retrieval, by the text tower that a base tower
was trained with, or by a run's connector and its language's embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from sailvit.core.batch import IGNORED
from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.data.process_pool import in_order
from sailvit.data.processing.processor import Processor
from sailvit.distributed.processes import gather_objects, rank, world
from sailvit.evaluation.probes.features.extraction import Seen, load_tile
from sailvit.evaluation.probes.recognition import right_answers
from sailvit.evaluation.probes.results import Outcome, Probe
from sailvit.evaluation.probes.sets.captions import CaptionSet
from sailvit.evaluation.probes.sets.labelled import Images
from sailvit.evaluation.probes.sets.opening import LabelledSets
from sailvit.models.loading.build import ModelBundle
from sailvit.models.towers.tower import Tower

WHOLE = -1
"""Layer of features that the whole model makes."""
TOPS = (1, 5, 10)
"""Ranks up to which a match is right; towers are compared in the first."""
PROMPT = "a photo of a {}."
"""What a class is called in, by CLIP's habit."""
_TEXTS = 64
"""Texts that are embedded at once."""
_ROWS = 1024
"""Rows of similarities at once."""

ClassNames = Mapping[str, Sequence[str]]
"""Names of a class for people, by its name in the data."""


class Encoder(Protocol):
    """Images and texts as unit vectors of one space."""

    @property
    def tower(self) -> Tower:
        """The tower, which says what tiles are."""

    def images(self, tiles: torch.Tensor) -> torch.Tensor:
        """Unit vectors float[I, D] of tiles uint8[I, C, H, W]."""

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors float[T, D] of texts."""


class ConnectorSpace:
    """A run's model as an encoder: an image is its mean visual token, a text the mean input embedding
    of its tokens, as in the contrastive objective.
    """

    def __init__(self, bundle: ModelBundle) -> None:
        bundle.mllm.eval()
        self.tower = bundle.mllm.tower
        """The run's tower."""
        self._bundle = bundle
        self._processor = Processor(
            # No caption is too long here: nothing is packed, and a cut one would be another
            # caption.
            bundle.tokenizer,
            bundle.layout,
            longest=1 << 30,
            day=bundle.day,
        )

    @torch.inference_mode()
    def images(self, tiles: torch.Tensor) -> torch.Tensor:
        """Unit vectors float[I, D] of tiles uint8[I, C, H, W]."""
        visual = self._bundle.mllm.connector(self.tower(tiles))
        return torch.nn.functional.normalize(visual.float().mean(dim=1), dim=-1)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors float[T, D] of texts."""
        table = self._bundle.mllm.language.get_input_embeddings()
        rows = []
        for text in texts:
            turns = (Turn("user", "caption"), Turn("assistant", text))
            labels = self._processor("probe", Record("text", turns)).labels
            # What is learnt of a caption, the end of its turn with it.
            ids = labels[labels != IGNORED].to(self.tower.mean.device)
            rows.append(table(ids).float().mean(dim=0))
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def zero_shot(
    encoder: Encoder,
    sets: LabelledSets,
    prompts: Sequence[str],
    names: ClassNames,
    *,
    embed: Callable[[Images, str], tuple[np.ndarray, torch.Tensor]],
) -> list[Outcome]:
    """Top-1 and top-5 of every test set, by the nearest class in words.

    Args:
        encoder: Where images and texts meet.
        sets: Labelled images.
        prompts: Sentences with `{}` for the name; the mean over them counts.
        names: Names of classes; others are called as in the data, `_` as a blank.
        embed: Gives positions and unit vectors of a set's images.
    """
    words = torch.stack(
        [_class_vector(encoder, each, prompts, names) for each in sets.train.classes]
    )
    found = []
    for name, test in sets.tests.items():
        kept, vectors = embed(test, f"{sets.name}/{name}")
        blocks = torch.split(vectors.to(words.device), _ROWS)
        scores = (block @ words.T for block in blocks)
        right = right_answers(scores, sets.answers[name][kept], len(words))
        found += [
            Outcome("zero-shot", WHOLE, f"{sets.name}/{name}", metric, hits, main=metric == "top-1")
            for metric, hits in right.items()
        ]
    return found


def retrieval(
    probe: Probe,
    encoder: Encoder,
    captions: CaptionSet,
    *,
    embed: Callable[[Images, str], tuple[np.ndarray, torch.Tensor]],
) -> list[Outcome]:
    """R@1, R@5 and R@10 from images to texts and back.

    A match is right if some record has this image with this text: equal captions, and several of
    one image, are all right.
    """
    kept, vectors = embed(captions, captions.name)
    chosen = [captions.captions[place] for place in kept]
    _, first, image_of = _numbered([each.image for each in chosen])
    texts, _, text_of = _numbered([each.text for each in chosen])
    seen = vectors[first]
    read = torch.cat(
        [encoder.texts(texts[at : at + _TEXTS]) for at in range(0, len(texts), _TEXTS)]
    ).to(seen.device)
    ways = {
        "image to text": (seen, read, image_of, text_of),
        "text to image": (read, seen, text_of, image_of),
    }
    return [
        Outcome(probe, WHOLE, captions.name, f"R@{top} {way}", hits, main=top == TOPS[0])
        for way, given in ways.items()
        for top, hits in recalled(*given).items()
    ]


def recalled(
    asked: torch.Tensor, held: torch.Tensor, asked_of: np.ndarray, held_of: np.ndarray
) -> dict[int, np.ndarray]:
    """float32[A] by rank: 1 where one of the nearest of float[H, D] belongs to the row of float[A, D].

    Row `asked_of[n]` and row `held_of[n]` belong together, for every n.
    """
    # A pair as one number: a table of all pairs of 5,000 captions would have 25 million cells.
    pairs = np.unique(asked_of.astype(np.int64) * len(held) + held_of)
    # A small set has fewer rows than the largest rank, and `topk` refuses to find more than there
    # are.
    most, ranked = min(TOPS[-1], len(held)), []
    for at in range(0, len(asked), _ROWS):
        rows = asked[at : at + _ROWS]
        near = (rows @ held.T).topk(most, dim=-1).indices.cpu().numpy()
        keys = (at + np.arange(len(rows)))[:, None] * len(held) + near
        ranked.append(np.isin(keys, pairs))
    right = np.concatenate(ranked)
    return {top: np.any(right[:, :top], axis=1).astype(np.float32) for top in TOPS}


def embedded_images(
    encoder: Encoder, images: Images, name: str, *, batch: int, threads: int, seen: Seen
) -> tuple[np.ndarray, torch.Tensor]:
    """Positions int64[M] of the images that can be decoded, and their unit vectors float[M, D], on
    the CPU. Processes share the images.

    Raises:
        DataError: none can be decoded.
    """
    mine = range(rank(), len(images), world())
    found: dict[int, torch.Tensor] = {}
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        load = partial(pool.submit, partial(load_tile, images, name, encoder.tower))
        tiles = zip(mine, in_order(load, Future.result, mine, most=3 * batch), strict=True)
        done = 0
        while block := list(islice(tiles, batch)):
            shown = {at: tile for at, tile in block if isinstance(tile, torch.Tensor)}
            if shown:
                given = torch.cat(list(shown.values())).to(encoder.tower.mean.device)
                found.update(zip(shown, encoder.images(given).cpu(), strict=True))
            done += len(block)
            seen(done, len(mine))
    merged = {place: each for share in gather_objects(found) for place, each in share.items()}
    if not merged:
        raise DataError(f"no image of {name} can be decoded")
    kept = sorted(merged)
    return np.array(kept, dtype=np.int64), torch.stack([merged[place] for place in kept])


def read_class_names(path: Path) -> ClassNames:
    """Names of classes from a JSON object: a name, or a list of them, by the name in the data.

    Raises:
        DataError: it is no such object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        listed = {
            key: [value] if isinstance(value, str) else list(map(str, value))
            for key, value in found.items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} holds no names of classes ({error}); expected"
            ' {"n01440764": "tench", "n01443537": ["goldfish", "gold fish"]}'
        ) from error
    return listed


def _class_vector(
    encoder: Encoder, name: str, prompts: Sequence[str], names: ClassNames
) -> torch.Tensor:
    """The unit vector float[D] of a class: the mean over its names in all prompts."""
    # Names of folders have `_` where a sentence has a blank.
    called = names.get(name) or [name.replace("_", " ")]
    sentences = [prompt.replace("{}", each) for prompt in prompts for each in called]
    return torch.nn.functional.normalize(encoder.texts(sentences).mean(dim=0), dim=-1)


def _numbered(values: Sequence[str]) -> tuple[list[str], list[int], np.ndarray]:
    """The different values, where each comes first, and int64[N]: the number of every one."""
    places: dict[str, int] = {}
    first: list[int] = []
    for position, value in enumerate(values):
        if value not in places:
            places[value] = len(places)
            first.append(position)
    return list(places), first, np.array([places[value] for value in values], dtype=np.int64)


def split_prompts(prompts: Sequence[str]) -> Iterator[str]:
    """The prompts, each with its place for a name.

    Raises:
        DataError: one has none.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise DataError(f"the prompt {prompt!r} has no {{}} for the name of a class; add it")
        yield prompt

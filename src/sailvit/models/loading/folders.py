"""Parts as plain Hugging Face folders, each proved by reloading it the way a user would."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from transformers import AutoConfig

from sailvit.core.atomic import set_usual_mode
from sailvit.core.disk import DISK_ERRORS
from sailvit.core.errors import ModelError
from sailvit.core.recipe import Part
from sailvit.distributed.processes import rank
from sailvit.distributed.sharding import whole_state
from sailvit.models.languages.adapters import FOLDER, merged, save_adapters
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.vision import find_vision
from sailvit.models.loading.vision_weights import load_whole
from sailvit.models.towers.preprocessing import save_preprocessor
from sailvit.models.towers.tower import Tower


def save_part(
    bundle: ModelBundle,
    part: Part,
    folder: Path,
    *,
    same_as: Path | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Write `part` to `folder` in its original architecture; an older copy is replaced only
    when the new one is whole.

    Every process calls it, as shards have to be put together; the first one writes. With
    `same_as`, a folder that holds the same weights, its files are linked, or copied where links
    are not to be had.

    Raises:
        ModelError: the tower, reloaded by transformers, does not give bit-equal features.
    """
    module = bundle.mllm.part(part)
    # Gathering shards takes the memory of the whole part: only where they are written or
    # proved.
    needed = same_as is None or (part == "tower" and bundle.mllm.rewritten)
    state = whole_state(module) if needed else {}
    if rank() != 0:
        return
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        if same_as is not None:
            shutil.copytree(same_as, draft, copy_function=link_file)
        else:
            _write(bundle, part, draft, state)
        if part == "tower":
            tower = bundle.mllm.tower
            held = _plain(tower, state) if bundle.mllm.rewritten else tower
            prove_tower(held, draft, trust_remote_code=trust_remote_code)
    except DISK_ERRORS:
        # The disk may be full, and a half-written part is of no use.
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _replace(folder, draft)


def _write(bundle: ModelBundle, part: Part, draft: Path, state: dict[str, torch.Tensor]) -> None:
    language, adapters = bundle.mllm.language, bundle.mllm.adapters
    if part == "language" and adapters is not None:
        if adapters.keep:
            save_adapters(language, adapters, state, draft / FOLDER)
        state = merged(language, state)
    bundle.mllm.part(part).save_pretrained(draft, state_dict=state)  # type: ignore[operator]
    if part == "tower":
        save_preprocessor(bundle.preprocessor, bundle.mllm.tower, draft)
    elif part == "language":
        bundle.tokenizer.save_pretrained(draft)
    set_usual_mode(draft)


def link_file(source: str, target: str) -> str:
    """A hard link to the file, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _replace(folder: Path, draft: Path) -> None:
    """Rename the draft to `folder` once it is safe on the disk; the old one is removed last."""
    for path in draft.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@torch.no_grad()
def prove_tower(tower: Tower, folder: Path, *, trust_remote_code: bool = False) -> None:
    """Reload the tower from `folder` and compare its features of a noise tile bit by bit with
    those in memory.

    Raises:
        ModelError: they differ, or are no finite numbers.
    """
    size = tower.preprocessing.size
    noise = torch.randint(
        0, 256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    noise = noise.to(tower.mean.device)
    options = {"trust_remote_code": trust_remote_code}
    saved = find_vision(AutoConfig.from_pretrained(folder, **options), str(folder))
    # With the attention that a user gets by default. The tower's own implementation is this one
    # in fp32, so bits can be compared (docs/decisions/003).
    model, _ = load_whole(str(folder), saved, options, attention=None)
    again = tower.around(model).to(noise.device).eval()
    training = tower.training
    expected, found = tower.eval()(noise), again(noise)
    tower.train(training)
    if not expected.isfinite().all():
        raise ModelError(
            "the tower's features are no finite numbers: it has diverged. No export mends that; train"
            " again with a lower rate, in another run folder"
        )
    if not torch.equal(expected, found):
        raise ModelError(
            f"the tower saved in {folder} gives other features than the one in memory (largest difference"
            f" {(expected - found).abs().max().item():.3g}); the folder is not published"
        )


def _plain(tower: Tower, state: dict[str, torch.Tensor]) -> Tower:
    """The tower as one process without compilation holds it: compiled or sharded blocks give
    other last bits.
    """
    model = type(tower.model)(tower.model.config)
    model.load_state_dict(state)
    return tower.around(model).to(tower.mean.device)

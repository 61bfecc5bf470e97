"""Parts as plain Hugging Face folders, each proved by reloading it the way a user would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoModel

from sailvit.core.errors import ModelError
from sailvit.core.recipe import Part
from sailvit.distributed.processes import rank
from sailvit.distributed.sharding import whole_state
from sailvit.models.build import Assembly
from sailvit.models.tower import Tower


def save_part(assembly: Assembly, part: Part, folder: Path) -> None:
    """Write `part` to `folder` in its original architecture; an older copy is replaced only when the new one is whole.

    Every process calls it, as shards have to be put together; the first one writes.

    Raises:
        ModelError: the tower, reloaded with `AutoModel`, does not give bit-equal features.
    """
    module = assembly.mllm.part(part)
    state = whole_state(module)
    if rank() != 0:
        return
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    module.save_pretrained(draft, state_dict=state)  # type: ignore[operator]
    if part == "tower":
        text = json.dumps(assembly.preprocessor, indent=1, default=str)
        (draft / "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")
        tower = assembly.mllm.tower
        prove_tower(_plain(tower, state) if assembly.mllm.rewritten else tower, draft)
    elif part == "language":
        assembly.tokenizer.save_pretrained(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


@torch.no_grad()
def prove_tower(tower: Tower, folder: Path) -> None:
    """Reload the tower from `folder` and compare its features of a noise tile bit by bit with those in memory."""
    size = tower.preprocessing.size
    noise = torch.randint(
        0, 256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    noise = noise.to(tower.mean.device)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    again = tower.around(model).to(noise.device).eval()
    training = tower.training
    expected, found = tower.eval()(noise), again(noise)
    tower.train(training)
    if not torch.equal(expected, found):
        raise ModelError(
            f"the tower saved in {folder} gives other features than the one in memory (largest difference"
            f" {(expected - found).abs().max().item():.3g}); the folder is not published"
        )


def _plain(tower: Tower, state: dict[str, torch.Tensor]) -> Tower:
    """The tower as one process without compilation holds it: bits can be compared with nothing else."""
    model = type(tower.model)(tower.model.config)
    model.load_state_dict(state)
    return tower.around(model).to(tower.mean.device)

"""What a tower of any source can do, one function per column of docs/towers.md; each returns what the table shows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from changed_runs import captured, process_alone, told_apart

from sailvit.core.recipe import ImageConfig, ParallelConfig
from sailvit.core.run import RunFolder
from sailvit.distributed.sharding import make_mesh, whole
from sailvit.models.blocks import find_blocks
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.loading.folders import prove_tower
from sailvit.models.loading.parts import load_tower
from sailvit.models.structure.parallel import parallelize, shard
from sailvit.models.towers.tower import Tower
from sailvit.training.trainer import Trainer
from tiny_parts import Parts, picture
from tiny_runs import recipe, stage, write_data
from tiny_sources import asked


def tiles(count: int = 2) -> torch.Tensor:
    """Tiles uint8[I, C, H, W]."""
    return torch.stack([torch.from_numpy(picture(n)).permute(2, 0, 1) for n in range(count)])


def loaded(folder: Path) -> Tower:
    """The tower of a checkpoint, in evaluation mode."""
    return load_tower(asked(folder))[0].eval()


def load(folder: Path) -> str:
    """The grid and the tokens before it."""
    tower = loaded(folder)
    return f"{tower.prefix} + {tower.side} x {tower.side}"


@torch.no_grad()
def grid(folder: Path) -> str:
    """Every patch in turn gets other pixels: the token that answers most is the patch's own."""
    tower = loaded(folder)
    tile = tiles(1)
    before = tower(tile)
    changed = []
    for place in range(tower.patches):
        other, side = tile.clone(), tower.patch
        row, column = place // tower.side * side, place % tower.side * side
        other[:, :, row : row + side, column : column + side] ^= 255
        changed.append((tower(other) - before).norm(dim=-1)[0])
    moved = torch.stack(changed)
    # A token that moves with every patch says nothing: each is compared with what it does else.
    answer = moved / moved.mean(dim=0, keepdim=True)
    found, places = answer.argmax(dim=1), torch.arange(tower.patches)
    far = ((found // tower.side - places // tower.side).abs()).maximum(
        (found % tower.side - places % tower.side).abs()
    )
    # A convolution behind the blocks, as SAM has, moves neighbours as much.
    assert far.max() <= 1
    assert not far.any() or any(
        isinstance(part, torch.nn.Conv2d) and part.padding == (1, 1)
        for part in tower.model.modules()
    )
    hits = int((far == 0).sum())
    return f"{hits} of {tower.patches}" + (", else a neighbour" if far.any() else "")


def recompute(folder: Path) -> str:
    """Worst difference of features and gradients with the blocks computed again."""
    return _against(folder, ParallelConfig(recompute={"tower": "full"}))


def compiled(folder: Path) -> str:
    """The same with compiled blocks, as torch's compiler captures them (backend aot_eager)."""
    with captured("aot_eager"):
        return _against(folder, ParallelConfig(compile=True))


def sharded(folder: Path) -> str:
    """The same with sharded parameters (FSDP2, one process)."""
    if loaded(folder).alone:
        return "no: runs tile by tile"
    with process_alone(folder.parent / "store"):
        return _against(folder, None)


def _against(folder: Path, config: ParallelConfig | None) -> str:
    plain, other = _model(folder).mllm, _model(folder).mllm
    if config is None:
        shard(other, make_mesh("cpu", "shard", None), bf16=False, offload=False)
    else:
        parallelize(other, config, torch.device("cpu"), bf16=False)
    found = []
    for model in (plain, other):
        model.train()
        # Dropped paths and shaken positions are drawn alike for both.
        torch.manual_seed(0)
        features = model.features(tiles())
        assert features is not None
        features.square().mean().backward()
        grads = [weight.grad for weight in model.tower.model.parameters()]
        found.append([features.detach(), *(None if g is None else whole(g) for g in grads)])
    return told_apart(*found)


def _model(folder: Path) -> ModelBundle:
    """The tower with a small language; nothing in it is drawn at random in a pass."""
    bundle = build(
        Parts(folder.parent / "parts").config().model_copy(update={"tower": str(folder)})
    )
    for part in bundle.mllm.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return bundle


def stages(folder: Path, **image: Any) -> tuple[str, str, str, str]:
    """Freezing, three stages, export and reload: one run of connector, last block, everything.

    The run itself proves after the first steps of each stage that what is frozen stayed so, and
    reloads every saved tower; here its folders are compared with the source and each other.
    """
    made = recipe(
        Parts(folder.parent / "parts"),
        write_data(folder.parent),
        [
            stage("coarse", train={"connector": 1.0}, data=["captions"], length={"samples": 4}),
            stage(
                "fine",
                train={"connector": 1.0, "tower": {"lr": 1.0, "last_blocks": 1}},
                length={"samples": 4},
            ),
            stage("world", length={"samples": 4}),
        ],
        model=asked(
            folder,
            language=Parts(folder.parent / "parts").language("llama"),
            image=ImageConfig(**image),
        ).model_dump(),
    )
    run = RunFolder(folder.parent / "run")
    bundle = Trainer(made, run).run()
    saved = [loaded(run.path / f"stages/{name}/tower") for name in NAMES]
    states = [dict(tower.model.named_parameters()) for tower in (loaded(folder), *saved)]
    idle, tower = bundle.mllm.tower.idle, bundle.mllm.tower.eval()
    moved = [
        {name for name in states[0] if not torch.equal(states[n][name], states[n + 1][name])}
        for n in range(3)
    ]
    blocks, stack = find_blocks(tower.model)
    assert not moved[0]
    early = tuple(f"{blocks}.{n}." for n in range(len(stack) - 1))
    assert moved[1]
    assert not any(name.startswith(early) for name in moved[1])
    assert moved[2] >= set(states[0]) - idle - _still(tower)
    prove_tower(tower, run.path / f"stages/{NAMES[-1]}/tower")
    with torch.no_grad():
        assert torch.equal(saved[-1](tiles()), tower(tiles()))
    auto = "AutoModel" if not any("AutoModel knows no" in n for n in bundle.notes) else "own class"
    return "last block alone", "yes", auto, "equal"


NAMES = ("00-coarse", "01-fine", "02-world")


def _still(tower: Tower) -> set[str]:
    """Parameters whose gradient is nothing for these features, such as key biases in softmax."""
    model = copy.deepcopy(tower)
    model(tiles()).square().sum().backward()
    largest = max(float(w.grad.abs().max()) for w in model.model.parameters() if w.grad is not None)
    return {
        name
        for name, weight in model.model.named_parameters()
        if weight.grad is None or float(weight.grad.abs().max()) < 1e-5 * largest
    }


COLUMNS: dict[str, Callable[[Path], str]] = {
    "grid": load,
    "patches in order": grid,
    "recompute": recompute,
    "compile": compiled,
    "shard": sharded,
}
"""The columns that need no training run."""

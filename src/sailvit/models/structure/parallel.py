"""Parallelism as a function of the single-device model, in a fixed order: fuse, recompute,
compile, shard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import PARTS, ParallelConfig
from sailvit.distributed.processes import lowest, world
from sailvit.distributed.sharding import make_mesh
from sailvit.models.blocks import find_blocks
from sailvit.models.languages.kernels import fuse
from sailvit.models.structure.mllm import MLLM
from sailvit.models.structure.packing_choice import Chosen, choose_way
from sailvit.models.towers.native_proof import row_reader

_KEPT = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}
"""What `selective` keeps: results of matrix products, the costliest to compute again."""

_VERSIONS = 64
"""How often one piece of code may be compiled. Blocks of tower and language share code, and it is
compiled for each with and without graph, in every stage that trains other parts: torch's 8 are
used up by three stages, and everything after that would silently run as if never compiled."""


def settle(
    model: MLLM, config: ParallelConfig, device: torch.device, *, bf16: bool, longest: int = 0
) -> Chosen:
    """Move the model to its device and parallelize it; returns how it reads packs there, in rows
    of up to `longest` tokens.

    That is proved again on the device and after parallelizing: kernels differ between devices,
    and compiled or sharded blocks are other code.
    """
    model.to(device)
    if device.type != "cpu":
        choose_way(model, config.packing)
    parallelize(model, config, device, bf16=bf16)
    chosen = choose_way(model, config.packing, first=model.chosen, longest=longest)
    let_go(model)
    return chosen


def parallelize(model: MLLM, config: ParallelConfig, device: torch.device, *, bf16: bool) -> MLLM:
    """The same model, changed in place for this recipe and number of processes; parameter names
    stay as they are.

    Raises:
        RecipeError: the processes do not divide into groups as the recipe wants, or there is no
            GPU to offload from.
    """
    _refuse_offload(config, device)
    sharded = config.mode != "replicate" and world() > 1
    _choose_row(model, device, sharded=sharded)
    if config.kernels == "auto" and not config.compile:
        fuse(model.language, device)
    # torchtitan's order: compile after the wrapping for recompute and before FSDP. Blocks alone
    # are compiled, as there: equal blocks share what was compiled for the first.
    for part in PARTS:
        blocks = find_blocks(model.part(part))[1]
        for block in blocks if part in config.recompute else ():
            block.forward = _recomputed(block.forward, config.recompute[part])
        if config.compile:
            _compile(blocks)
    model.rewritten = config.compile
    if sharded:
        _refuse_alone(model)
        shard(
            model,
            make_mesh(device.type, config.mode, config.group),
            bf16=bf16,
            offload=config.offload,
        )
    return model


def shard(model: MLLM, mesh: DeviceMesh, *, bf16: bool, offload: bool) -> None:
    """Split every block of tower and language as a unit of its own, and all the rest as one
    (FSDP2).

    The rest holds the embeddings, which objectives look up outside the language's own forward,
    and which may be tied to its head: being the root, it is gathered from the first use of a
    step to the end of its backward pass.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None,
        # With 8 bits of precision a sum over many processes would lose small gradients.
        reduce_dtype=torch.float32,
        # Rotary angles come in as arguments and would lose their precision.
        cast_forward_inputs=False,
    )
    options: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": policy,
        "offload_policy": CPUOffloadPolicy() if offload else OffloadPolicy(),
    }
    units = [block for part in PARTS for block in find_blocks(model.part(part))[1]]
    for unit in [*units, model]:
        # Losses are divided by global counts already: gradients are to be summed, not averaged.
        sharded = fully_shard(unit, **options)
        sharded.set_gradient_divide_factor(1.0)
        # A plain sum is the one reduction that every backend knows.
        sharded.set_force_sum_reduction_for_comms(True)
    for method in ("visual", "features", "read"):
        register_fsdp_forward_method(model, method)
    model.everywhere = model.rewritten = True


def _choose_row(model: MLLM, device: torch.device, *, sharded: bool) -> None:
    """Let a tower of native resolution read all images of a batch in one call, where that is
    faster or needed and gives the same features.
    """
    # On the CPU a call per grid is as fast, and needs no copy of all tokens.
    if not model.native or (device.type == "cpu" and not sharded):
        return
    tower = model.tower
    reader = row_reader(tower, int(model.connector.config.merge))
    # One way for all: processes may have different kernels, and shards need equal calls.
    if lowest(int(reader is not None), device):
        tower.row = reader
    elif reader is not None:
        reader.undo()


def _refuse_offload(config: ParallelConfig, device: torch.device) -> None:
    if config.offload and device.type == "cpu":
        raise RecipeError(
            "parallel.offload moves shards from a GPU to the CPU, and this is a CPU run; leave it out"
        )


def _refuse_alone(model: MLLM) -> None:
    if model.tower.alone:
        raise RecipeError(
            "the tower mixes the tiles of a batch, so it runs tile by tile, and processes with other"
            " numbers of tiles would wait for each other in shards; set parallel.mode to replicate"
        )
    if model.native and model.tower.row is None:
        raise RecipeError(
            "the tower cannot read images of several grids as one row, so those of each grid share a"
            " call, and processes with other numbers of grids would wait for each other in shards;"
            " set parallel.mode to replicate, or model.image.mode to fixed or tiled"
        )


def is_sharded(model: nn.Module) -> bool:
    """Whether the model's parameters are split over processes."""
    return isinstance(model, FSDPModule)


def let_go(model: nn.Module) -> None:
    """Free the weights that a pass without backward has gathered of a sharded model; a no-op
    for others.
    """
    if isinstance(model, FSDPModule):
        model.reshard()


def hold_gradients(model: nn.Module, *, hold: bool) -> None:
    """Set whether the next backward pass of a sharded model keeps whole gradients and sends
    none.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not hold)


def note_trained(model: nn.Module) -> None:
    """Tell a sharded model that other parts train now.

    FSDP2 decides the precision in which a unit sums gradients when the unit is first gathered,
    and decides nothing while nothing in it trains. Gathering it again makes it decide again.
    """
    for unit in model.modules():
        if isinstance(unit, FSDPModule):
            unit.unshard()
            unit.reshard()


def _compile(blocks: Sequence[nn.Module]) -> None:
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _VERSIONS)
    for block in blocks:
        block.compile()


def _recomputed(
    forward: Callable[..., Any], how: Literal["selective", "full"]
) -> Callable[..., Any]:
    """A forward that keeps little for the backward pass, which computes the rest again."""
    context = partial(create_selective_checkpoint_contexts, _policy) if how == "selective" else None
    options: dict[str, Any] = {} if context is None else {"context_fn": context}

    return partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=True, **options)


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    del context, args, kwargs
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE

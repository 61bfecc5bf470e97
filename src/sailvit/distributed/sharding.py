"""Sharded tensors: reading and writing their whole values, and norms over them. Plain tensors
are taken too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor, zeros

from sailvit.core.errors import RecipeError
from sailvit.distributed.processes import local_world, world


def make_mesh(device: str, mode: str, group: int | None) -> DeviceMesh:
    """The processes as a line for `shard`, or as replicas x shards for `hybrid`.

    Raises:
        RecipeError: groups of this size do not come out even.
    """
    if mode == "shard":
        return init_device_mesh(device, (world(),), mesh_dim_names=("shard",))
    size = group or local_world()
    if world() % size:
        raise RecipeError(
            f"parallel.group is {size}, but {world()} processes do not divide into groups of it; set it to a divisor"
        )
    return init_device_mesh(device, (world() // size, size), mesh_dim_names=("replicate", "shard"))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The unsharded value; every process must call it."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    return tensor.full_tensor().detach()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of `tensor`: the shard of a sharded one, which copies between
    devices as it is.
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sharded_like(held: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The tensor of `like`'s shape of which this process holds `held`; `held` itself where
    `like` is not sharded.
    """
    if not isinstance(like, DTensor):
        return held
    return DTensor.from_local(
        held,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def rows_like(like: torch.Tensor, width: int) -> torch.Tensor:
    """Zeros float32[rows, width] with as many rows as `like`, sharded as its rows are."""
    shape = (like.shape[0], width)
    if not isinstance(like, DTensor):
        return torch.zeros(shape, device=like.device)
    made = zeros(shape, device_mesh=like.device_mesh, placements=like.placements)
    # With shards offloaded to the CPU the mesh is still the GPUs'.
    return made.to(like.device)


def whole_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of unsharded values; tied ones share their memory as in the module. Every
    process must call it.
    """
    made: dict[int, torch.Tensor] = {}
    state = module.state_dict(keep_vars=True)
    return {name: made.setdefault(id(tensor), whole(tensor)) for name, tensor in state.items()}


def square_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The process's share of a tensor's sum of squares, float[]; the shares of all processes
    add up to it.
    """
    # A replicated value is on every process, so each counts only its fraction of it.
    held, copies = tensor.detach(), world()
    if isinstance(tensor, DTensor):
        mesh = tensor.device_mesh
        copies = math.prod(
            mesh.size(axis) for axis, kind in enumerate(tensor.placements) if kind.is_replicate()
        )
        held = tensor.to_local().detach()
    norm: torch.Tensor = torch.linalg.vector_norm(held)
    return norm.square() / copies


@torch.no_grad()
def fill(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Copy an unsharded value, the same on every process, into a tensor that may be sharded."""
    if isinstance(tensor, DTensor):
        value = distribute_tensor(value.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(value)


def fill_all(tensors: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    """`fill` by name; KeyError when a value is missing, RuntimeError when a shape differs."""
    for name, tensor in tensors.items():
        fill(tensor, values[name])


def clip_gradients(parameters: Iterable[torch.nn.Parameter], limit: float | None) -> float:
    """The norm of all gradients before they are scaled down to norm `limit`; sharded and plain
    ones count alike.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    # Apart, as torch's foreach kernels refuse lists that mix DTensors with tensors.
    kinds = [kind for kind in (_of_kind(held, sharded=True), _of_kind(held, sharded=False)) if kind]
    if not kinds:
        return 0.0
    norms = [whole(torch.nn.utils.get_total_norm(_gradients(kind), foreach=True)) for kind in kinds]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if limit is not None:
        for kind in kinds:
            torch.nn.utils.clip_grads_with_norm_(kind, limit, norm, foreach=True)
    return float(norm)


def _of_kind(parameters: list[nn.Parameter], *, sharded: bool) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if isinstance(parameter, DTensor) is sharded]


def _gradients(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]

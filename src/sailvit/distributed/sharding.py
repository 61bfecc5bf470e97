"""Sharded tensors: whole values out of them and into them, and norms over them. Plain tensors pass as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

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
    """The unsharded value; every process must ask."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    return tensor.full_tensor().detach()


def whole_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict of unsharded values, tied ones sharing their memory as in the module; every process must ask."""
    made: dict[int, torch.Tensor] = {}
    state = module.state_dict(keep_vars=True)
    return {name: made.setdefault(id(tensor), whole(tensor)) for name, tensor in state.items()}


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
    """The norm of all gradients before they are scaled down to norm `limit`; sharded and plain ones count alike."""
    held = [parameter for parameter in parameters if parameter.grad is not None]
    kinds = [[p for p in held if isinstance(p.grad, DTensor) is sharded] for sharded in (True, False)]
    kinds = [kind for kind in kinds if kind]
    norms = [
        whole(torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None], foreach=True))
        for kind in kinds
    ]
    if not norms:
        return 0.0
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for kind in kinds if limit is not None else ():
        torch.nn.utils.clip_grads_with_norm_(kind, limit or 0.0, norm, foreach=True)
    return float(norm)

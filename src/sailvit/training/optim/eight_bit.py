"""AdamW whose moments take one byte each (arXiv 2110.02861): a code per value, and a scale per
block of values.

Blocks lie within rows, so a shard holds whole blocks: codes and scales are ordinary tensors that
are sharded, saved and resumed like weights, on any number of processes, to the same bits. Weights
and gradients stay in float32 (docs/decisions/012).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from sailvit.distributed.sharding import local, rows_like, sharded_like

BLOCK = 128
"""Values that share a scale. Widths of models are multiples of it, mostly."""
SMALLEST = 4096
"""Parameters with fewer values keep moments in float32, as in bitsandbytes: they take little
memory, and norms and biases are sensitive."""
_CHUNK = 1 << 22
"""Values updated at a time, which limits the float32 copies of moments to about 100 MiB."""
_TINY = 1e-12
"""Smallest scale, so that a block of zeros is not divided by zero."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


def in_codes(parameter: torch.Tensor) -> bool:
    """Whether the moments of a parameter are codes: it is large, and blocks fill its rows."""
    width = math.prod(parameter.shape[1:])
    return parameter.ndim > 1 and parameter.numel() >= SMALLEST and width % BLOCK == 0


def moment_bytes(parameter: torch.Tensor) -> float:
    """Bytes per value of both moments of a parameter."""
    return 2 * (1 + 4 / BLOCK) if in_codes(parameter) else 8.0


class AdamW8bit(torch.optim.AdamW):
    """torch's AdamW with the moments of large matrices in 8 bits; a step sees them exactly, and
    they are rounded when it has used them.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state |= {key: blank_state(parameter, key) for key in _keys(parameter)}
                # Where a resumed state was read onto a GPU, asking for it would wait for it.
                state["step"] = state["step"].cpu() + 1
                _update(parameter, state, group)


def blank_state(parameter: torch.Tensor, key: str) -> torch.Tensor:
    """What `key` of a parameter's state is before the first step, sharded like the parameter."""
    parameter = parameter.detach()
    if key == "step":
        # On the CPU: asking a GPU for its value would wait for it.
        return torch.zeros(())
    if not in_codes(parameter):
        return torch.zeros_like(parameter)
    if key.endswith("_scale"):
        return rows_like(parameter, math.prod(parameter.shape[1:]) // BLOCK)
    zero = int(torch.bucketize(torch.zeros(()), _middles(signed=key == "exp_avg"), right=True))
    return torch.full_like(parameter, zero, dtype=torch.uint8)


def moment(parameter: torch.Tensor, state: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
    """A moment of any AdamW as float32, sharded like its parameter."""
    if f"{key}_scale" not in state:
        return state[key]
    codes, scale = local(state[key]), local(state[f"{key}_scale"])
    values = _decoded(_rows(codes), scale, signed=key == "exp_avg")
    return sharded_like(values.view(codes.shape), parameter)


def _keys(parameter: torch.Tensor) -> tuple[str, ...]:
    scales = tuple(f"{key}_scale" for key in _MOMENTS) if in_codes(parameter) else ()
    return ("step", *_MOMENTS, *scales)


def _update(
    parameter: torch.Tensor, state: Mapping[str, torch.Tensor], group: Mapping[str, Any]
) -> None:
    """One step of a parameter, of this process's share of it, some rows at a time."""
    assert parameter.grad is not None
    weights, gradients = _rows(local(parameter.detach())), _rows(local(parameter.grad))
    steps, (fast, slow) = float(state["step"]), group["betas"]
    held = {key: _rows(local(tensor)) for key, tensor in state.items() if key != "step"}
    size = max(1, _CHUNK // max(weights.shape[1], 1))
    for start in range(0, len(weights), size):
        rows = slice(start, start + size)
        part = {key: tensor[rows] for key, tensor in held.items()}
        gradient = gradients[rows].float()
        first = _read(part, "exp_avg").lerp(gradient, 1 - fast)
        second = _read(part, "exp_avg_sq").lerp(gradient.square(), 1 - slow)
        spread = (second / (1 - slow**steps)).sqrt_().add_(group["eps"])
        weights[rows].mul_(1 - group["lr"] * group["weight_decay"]).addcdiv_(
            first, spread, value=-group["lr"] / (1 - fast**steps)
        )
        _write(part, "exp_avg", first)
        _write(part, "exp_avg_sq", second)


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers as float[rows, width]; a vector is one row."""
    return tensor.view(len(tensor), -1) if tensor.ndim > 1 and len(tensor) else tensor.view(1, -1)


def _read(part: Mapping[str, torch.Tensor], key: str) -> torch.Tensor:
    scale = part.get(f"{key}_scale")
    return part[key] if scale is None else _decoded(part[key], scale, signed=key == "exp_avg")


def _write(part: Mapping[str, torch.Tensor], key: str, values: torch.Tensor) -> None:
    scale = part.get(f"{key}_scale")
    if scale is None:
        part[key].copy_(values)
        return
    blocks = values.view(*scale.shape, BLOCK)
    scale.copy_(blocks.abs().amax(-1).clamp_(min=_TINY))
    middles = _middles(signed=key == "exp_avg").to(values.device)
    codes = torch.bucketize(blocks / scale[..., None], middles, out_int32=True, right=True)
    part[key].copy_(codes.view(values.shape))
    if key == "exp_avg_sq":
        # The update divides by its root: rounded to 0 beside a first moment that is not, a weight
        # without a gradient in the next step would move by hundreds of learning rates.
        part[key].masked_fill_((part[key] == 0) & (values > 0), 1)


def _decoded(codes: torch.Tensor, scale: torch.Tensor, *, signed: bool) -> torch.Tensor:
    """float[rows, width] of uint8[rows, width] codes and float[rows, blocks] scales."""
    values = _values(signed=signed).to(codes.device)[codes.int()]
    return (values.view(*scale.shape, BLOCK) * scale[..., None]).view(codes.shape)


@cache
def _middles(*, signed: bool) -> torch.Tensor:
    """float[255]: borders between the values of neighbouring codes."""
    values = _values(signed=signed)
    return (values[1:] + values[:-1]) / 2


@cache
def _values(*, signed: bool) -> torch.Tensor:
    """float[256]: what the codes stand for, ascending: steps that are finer near zero, seven
    decades down from 1 (dynamic tree quantisation, section 2.2 of the paper).
    """
    found = [0.0, 1.0]
    for decade in range(7):
        count = 2**decade if signed else 2 ** (decade + 1)
        borders = torch.linspace(0.1, 1, count + 1)
        middles = 10.0 ** (decade - 6) * (borders[:-1] + borders[1:]) / 2
        found += [*middles.tolist(), *((-middles).tolist() if signed else ())]
    return torch.tensor(sorted(found))

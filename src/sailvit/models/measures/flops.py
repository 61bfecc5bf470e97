"""FLOPs of a training step, counted from the model's own matrices, with frozen parts at what
they really cost.

Per part, F is what its matrices and attention cost forward. A multiplication and addition are
two FLOPs, so a matrix costs 2 x its size per token, and attention 4 x heads x head width per
layer and pair of positions (half of the pairs when causal; a sliding window is counted as if it
were full). Then

    forward               F
    gradient of weights   F of the matrices that train
    gradient of inputs    F, attention twice, from the first layer on that trains or lies above something that does

Element-wise work, embeddings and recomputation are left out, as is usual for MFU.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from sailvit.models.blocks import find_blocks
from sailvit.models.structure.mllm import MLLM


@dataclass(frozen=True)
class Work:
    """FLOPs that grow with tokens and with the squared lengths of segments."""

    per_token: float = 0.0
    """FLOPs per token: the matrices."""
    per_square: float = 0.0
    """FLOPs per squared token of a segment: attention."""

    def flops(self, tokens: float, squares: float) -> float:
        """FLOPs of segments with so many tokens in all and so large a sum of squared lengths."""
        return self.per_token * tokens + self.per_square * squares


@dataclass(frozen=True)
class PartFlops:
    """What one part costs, forward and backward."""

    forward: Work
    """The forward pass."""
    weights: Work
    """Gradients of the weights that train."""
    inputs: Work
    """Gradients of activations that the part's own training needs; nothing when the part is
    frozen."""
    trains: bool
    """Whether any of its parameters trains."""

    def step(self, tokens: float, squares: float = 0.0, *, trained_below: bool) -> float:
        """FLOPs of a step; `trained_below` says whether gradients must pass through to what
        feeds the part.
        """
        # Two products behind every product of the forward pass; one of the two is a matrix's
        # own weight gradient, but attention has no weights, so both are gradients of its
        # inputs.
        whole = Work(self.forward.per_token, 2 * self.forward.per_square)
        inputs = whole if trained_below else self.inputs
        return sum(work.flops(tokens, squares) for work in (self.forward, self.weights, inputs))


@dataclass(frozen=True)
class FlopsModel:
    """FLOPs of any step of one stage."""

    tower: PartFlops
    """Per token of a tile, CLS and register tokens included."""
    connector: PartFlops
    """Per visual token."""
    language: PartFlops
    """Per token of a pack, without the head."""
    head: PartFlops
    """The language's head, per scored token."""
    tile_patches: int
    """Patches of a tile."""
    prefix: int
    """CLS and register tokens of a picture inside the tower."""
    visual_tokens: int
    """Tokens of a tile after merging."""
    language_runs: bool = True
    """Whether any objective of the stage needs the language."""

    def step(
        self,
        *,
        tiles: float,
        segment_squares: float,
        tokens: float,
        answer_tokens: float,
        pictures: float | None = None,
        picture_squares: float | None = None,
    ) -> float:
        """FLOPs, forward and backward, of a step.

        Args:
            tiles: Number of tiles.
            pictures: Number of pictures that the tower sees by themselves; None: every tile is
                one.
            picture_squares: Sum over pictures of their squared number of tiles; None: as many.
            segment_squares: Sum over samples of their squared length in tokens.
            tokens: Number of tokens without padding.
            answer_tokens: Number of tokens with loss; only they reach the language's head.
        """
        seen = self.tower_tokens(
            tiles,
            tiles if pictures is None else pictures,
            tiles if picture_squares is None else picture_squares,
        )
        total = self.tower.step(*seen, trained_below=False)
        total += self.connector.step(tiles * self.visual_tokens, trained_below=self.tower.trains)
        if self.language_runs:
            below = tiles > 0 and (self.tower.trains or self.connector.trains)
            total += self.language.step(tokens, segment_squares, trained_below=below)
            total += self.head.step(answer_tokens, trained_below=below or self.language.trains)
        return total

    def tower_tokens(self, tiles: float, pictures: float, squares: float) -> tuple[float, float]:
        """Tokens inside the tower, and the sum over pictures of their squared number; `squares` is
        that of tiles.
        """
        each, prefix = self.tile_patches, self.prefix
        return (
            tiles * each + pictures * prefix,
            # (n tiles x each + prefix) squared, summed over pictures.
            squares * each**2 + 2 * tiles * each * prefix + pictures * prefix**2,
        )


def flops_model(model: MLLM, *, language_runs: bool = True) -> FlopsModel:
    """The FLOPs of `model` as it stands: what trains is what requires a gradient. Works on the
    meta device.
    """
    language, tower = model.language, model.tower
    head = language.get_output_embeddings()
    head_work = Work(2.0 * head.weight.numel())
    return FlopsModel(
        tower=part_flops(
            tower.model, pair_flops=4.0 * _tower_attention_width(tower.model), idle=tower.idle
        ),
        connector=part_flops(model.connector),
        language=part_flops(
            language,
            # Half of a tower's: a causal language attends to half of the pairs.
            pair_flops=2.0 * attention_width(language.config.get_text_config()),
            head=head,
        ),
        head=PartFlops(
            head_work, head_work if head.weight.requires_grad else Work(), Work(), trains=False
        ),
        tile_patches=model.tile_patches,
        prefix=tower.prefix,
        visual_tokens=model.visual_tokens,
        language_runs=language_runs,
    )


def part_flops(
    model: nn.Module,
    *,
    pair_flops: float = 0.0,
    idle: Collection[str] = (),
    head: nn.Module | None = None,
) -> PartFlops:
    """The FLOPs of one part.

    Args:
        model: The part.
        pair_flops: FLOPs of attention per layer and squared token.
        idle: Names of parameters that are not used.
        head: A matrix counted elsewhere.
    """
    order = {id(parameter): place for place, parameter in enumerate(model.parameters())}
    first = min((order[id(p)] for p in model.parameters() if p.requires_grad), default=len(order))
    blocks = [order[id(next(block.parameters()))] for block in _running_blocks(model, idle)]
    # What precedes the blocks works on pixels or token ids: nothing below it can train.
    start = max([first, *blocks[:1]])
    # A part without blocks (a connector) has its layers in the order in which they run; the first
    # one's weights need no gradient of what it reads. Blocks may name their norm last.
    reached = start if blocks else first + 1
    matrices = [
        (parameter, cost) for name, parameter, cost in _matrices(model, head) if name not in idle
    ]
    return PartFlops(
        forward=Work(sum(cost for _, cost in matrices), pair_flops * len(blocks)),
        weights=Work(sum(cost for parameter, cost in matrices if parameter.requires_grad)),
        inputs=Work(
            sum(cost for parameter, cost in matrices if order[id(parameter)] >= reached),
            2 * pair_flops * sum(block >= start for block in blocks),
        ),
        trains=first < len(order),
    )


def _running_blocks(model: nn.Module, idle: Collection[str]) -> list[nn.Module]:
    """The blocks without those that nothing reads, behind the layer of the features."""
    unused = {id(parameter) for name, parameter in model.named_parameters() if name in idle}
    return [
        block
        for block in find_blocks(model)[1]
        if not all(id(parameter) in unused for parameter in block.parameters())
    ]


def _matrices(
    model: nn.Module, head: nn.Module | None
) -> Iterator[tuple[str, torch.Tensor, float]]:
    """Name, parameter and FLOPs per token of everything that multiplies tokens."""
    count, share = _experts(model) if hasattr(model, "config") else (1, 1.0)
    for prefix, module in model.named_modules():
        # Conv1D is GPT-2's linear layer, with its weight transposed.
        if isinstance(module, nn.Linear | nn.Conv2d | Conv1D) and module is not head:
            yield f"{prefix}.weight", module.weight, 2.0 * module.weight.numel()
        else:
            for name, parameter in module.named_parameters(recurse=False):
                if _holds_experts(prefix, parameter, count):
                    yield f"{prefix}.{name}", parameter, 2.0 * parameter.numel() * share


def _holds_experts(prefix: str, parameter: torch.Tensor, count: int) -> bool:
    """Whether a parameter, at a module of this name, holds matrices of all experts of a layer: as
    float[E, ., .] or, in DBRX, with their rows below each other.
    """
    if parameter.ndim == 3:
        return prefix.endswith("experts") or 1 < count == len(parameter)
    stacked = parameter.ndim == 2 and len(parameter) > count and len(parameter) % count == 0
    return stacked and "experts" in prefix.split(".")


def _experts(model: Any) -> tuple[int, float]:
    """Number of a mixture's experts, 1 where there is none, and the share of them that one token
    passes through.
    """
    config = model.config.get_text_config()
    # DBRX has a config of its own for its experts.
    config = getattr(config, "ffn_config", config)
    counts = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    used = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "moe_k")
    count, each = (
        next((n for name in names if type(n := getattr(config, name, None)) is int and n), 1)
        for names in (counts, (*used, "top_k_experts"))
    )
    return count, each / count


def _tower_attention_width(model: Any) -> int:
    """Heads times their width, from the first block's attention, or else from the config: those
    of other libraries do not tell, and Qwen-VL's calls the width of its merger `hidden_size`.
    """
    inside = [part for block in find_blocks(model)[1][:1] for part in block.modules()]
    found = ((getattr(part, name, None) for name in ("num_heads", "head_dim")) for part in inside)
    told = (n * width for n, width in found if type(n) is int and type(width) is int)
    return next(told, None) or attention_width(model.config)


def attention_width(config: Any) -> int:
    """Heads times their width; 0 for a model without attention."""
    config = _first_layers(config)
    given = getattr(config, "num_attention_heads", None)
    # Some families give heads per layer; the first stands for all.
    heads = int((given[0] if isinstance(given, list | tuple) else given) or 0)
    if value := getattr(config, "v_head_dim", None):
        # Latent attention (MLA), whose `head_dim` may be the rotated part alone: queries and keys
        # have another width than values, and a pair costs as much as their mean.
        parts = (getattr(config, f"qk_{each}_head_dim", None) or 0 for each in ("nope", "rope"))
        return int(heads * ((sum(parts) or value) + value) // 2)
    hidden = getattr(config, "hidden_size", None) or 0
    width = getattr(config, "head_dim", None) or (hidden // heads if heads else 0)
    return heads * int(width)


def _first_layers(config: Any) -> Any:
    """The config of the first layer where layers differ: it stands for all, as the config of the
    whole model refuses to tell what is not every layer's.
    """
    # Of layers that are alike no list is asked for: its length is not in every config.
    return config.per_layer_config[0] if getattr(config, "is_heterogeneous", False) else config

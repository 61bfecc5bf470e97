"""How much device memory a stage needs, estimated part by part.

Weights are fp32, and so are the gradients and AdamW's two moments of what trains. Under bf16
autocast every matrix that gradients pass through is also kept in bf16 until the backward pass.
Activations are counted per token, from the values that flow into and out of the matrices. How
many bytes autograd keeps per such value was measured with saved-tensor hooks on Qwen3, Llama
and AIMv2, which lie within 15 % of each other. Kernels' work space and fragmentation come on
top: leave a fifth of the device free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from sailvit.core.recipe import PARTS, Precision, Recipe, Stage
from sailvit.distributed.processes import world
from sailvit.models.blocks import find_blocks
from sailvit.models.languages.adapters import adapted_layers
from sailvit.models.languages.head import CHUNK
from sailvit.models.structure.mllm import MLLM
from sailvit.preflight.samples import MeanSample
from sailvit.training.objectives.base import known_objectives
from sailvit.training.optim.eight_bit import moment_bytes
from sailvit.training.stages.prepare_step import BYTES_PER_FEATURE

KEPT = {("bf16", True): 3.3, ("bf16", False): 2.0, ("fp32", True): 5.2, ("fp32", False): 3.4}
"""Bytes kept per value at a matrix, by precision and by whether the part trains."""
ADAPTED = {("bf16", False): 1.0, ("bf16", True): 2.6, ("fp32", False): 1.3, ("fp32", True): 4.0}
"""Bytes kept more per value at a frozen matrix with an adapter, by precision and by whether the
adapter has dropout, of which masks and what is left are kept; measured in the same way."""
PER_SCORE = 12
"""Bytes per score of the language's head: the scores in bf16 and fp32, and their gradient."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, without sharding."""

    weights: float
    """All parts in fp32, the base tower where an objective holds it, and the bf16 copies that the
    backward pass needs."""
    gradients: float
    """Of what trains."""
    buckets: float
    """In which several processes add up the gradients of replicated weights."""
    moments: float
    """AdamW's two, of what trains, and the running mean of the tower's weights where one is kept."""
    snapshot: float
    """The copy that a learning-rate search returns to, weights and moments of what trains; 0
    when it is kept on the CPU."""
    activations: float
    """Kept for the backward pass of one micro-batch, with the head's scores."""
    features: float
    """A frozen tower's, kept over an accumulated step for an objective that spans it."""

    @property
    def total(self) -> float:
        """Everything together."""
        lasting = self.weights + self.gradients + self.buckets + self.moments + self.snapshot
        return lasting + self.activations + self.features


def estimate_memory(
    model: MLLM, recipe: Recipe, stage: Stage, sample: MeanSample, *, language_runs: bool
) -> Memory:
    """The memory of a stage for which `model` is frozen as planned."""
    tokens = float(stage.micro_batch * recipe.sequence)
    samples = tokens / sample.tokens
    tiles = samples * sample.tiles
    precision = _planned(recipe.precision)
    tower, connector, language = (
        _size(part, precision) for part in (model.tower.model, model.connector, model.language)
    )
    # Tokens that a graph is kept for. Gradients reach a part through everything above it, so
    # a frozen language keeps activations when the connector trains; a frozen tower keeps none.
    seen = {
        "tower": samples * _tower_tokens(model, sample) * tower.trains,
        "connector": tiles * model.visual_tokens * (tower.trains or connector.trains),
        "language": tokens * language_runs * (tower.trains or connector.trains or language.trains),
    }
    parts = {"tower": tower, "connector": connector, "language": language}
    # autocast casts a weight once and holds the copy for the backward pass.
    copies = 2.0 * sum(parts[name].matrices for name in parts if seen[name]) * (precision == "bf16")
    activations = sum(parts[name].kept * seen[name] for name in parts)
    scores = language_runs * _scores(model, samples * sample.answers)
    trained = sum(part.trained for part in parts.values())
    moments = _moment_bytes(model, stage) + 4.0 * tower.trained * (stage.ema is not None)
    # Per parameter in fp32: weight 4, gradient 4 bytes.
    return Memory(
        weights=4.0 * (sum(part.parameters for part in parts.values()) + _base(tower, stage))
        + copies,
        gradients=4.0 * trained,
        buckets=4.0 * trained * _has_buckets(recipe),
        moments=moments,
        snapshot=(4.0 * trained + moments) * _keeps_way_back(stage),
        activations=activations + scores,
        features=0.0 if tower.trains else _features(model, recipe, stage, tiles),
    )


@dataclass(frozen=True)
class _Size:
    """The figures of one part that its memory depends on."""

    parameters: int
    """All of them."""
    trained: int
    """Those that train."""
    matrices: int
    """Parameters in matrices."""
    kept: float
    """Bytes per token that a graph through the part keeps."""

    @property
    def trains(self) -> bool:
        """Whether any of it trains."""
        return self.trained > 0


def _tower_tokens(model: MLLM, sample: MeanSample) -> float:
    """Tokens of a mean sample inside the tower."""
    pictures = sample.tiles if sample.pictures is None else sample.pictures
    return sample.tiles * model.tile_patches + pictures * model.tower.prefix


def _features(model: MLLM, recipe: Recipe, stage: Stage, tiles: float) -> float:
    """Bytes of features that a step keeps, when each of its micro-batches has `tiles` tiles."""
    spans = any(each.spans_step for each in known_objectives(stage.objectives))
    batches = stage.global_batch / (world() * stage.micro_batch)
    if not spans or stage.negatives == "micro_batch" or batches <= 1:
        return 0.0
    # The limit is kept here too: features beyond it are computed again, not kept.
    each = tiles * model.tile_patches * model.tower.width * BYTES_PER_FEATURE
    return min(batches * each, recipe.parallel.kept_features * 2**30)


def _base(tower: _Size, stage: Stage) -> int:
    """Parameters of the base tower that an objective holds beside the one that trains."""
    held = any(each.holds_base for each in known_objectives(stage.objectives))
    return tower.parameters * held


def _has_buckets(recipe: Recipe) -> bool:
    return world() > 1 and recipe.parallel.mode == "replicate"


def _moment_bytes(model: MLLM, stage: Stage) -> float:
    """Bytes of AdamW's two moments of what trains."""
    every = [p for part in PARTS for p in model.part(part).parameters()]
    trained = [p for p in every if p.requires_grad]
    if stage.optim.state == "8bit":
        return sum(p.numel() * moment_bytes(p) for p in trained)
    return 8.0 * sum(p.numel() for p in trained)


def _keeps_way_back(stage: Stage) -> bool:
    search = stage.schedule.search
    return search is not None and search.keep == "device"


def _planned(precision: Precision) -> Precision:
    """The precision to plan with: `auto` is taken for bf16, as on a GPU."""
    return "bf16" if precision == "auto" else precision


def _scores(model: MLLM, answers: float) -> float:
    """Bytes of scores over the vocabulary that are held at once: of one chunk of answers where
    the head is plain, of all answers elsewhere.
    """
    elements: float = answers * model.language.get_output_embeddings().weight.shape[0]
    # The loss holds no more than a chunk at once (models/languages/head.py).
    return PER_SCORE * (min(elements, CHUNK) if model.plain_head else elements)


def _size(model: nn.Module, precision: Precision) -> _Size:
    every = list(model.parameters())
    return _Size(
        parameters=sum(p.numel() for p in every),
        trained=sum(p.numel() for p in every if p.requires_grad),
        matrices=sum(p.numel() for p in every if p.ndim >= 2),
        kept=_kept(model, precision),
    )


def _kept(model: nn.Module, precision: Precision) -> float:
    """Bytes per token that the blocks which hold a graph keep at their matrices."""
    blocks, trains = _kept_blocks(model), any(p.requires_grad for p in model.parameters())
    adapted = [layer for block in blocks for _, layer in adapted_layers(block)]
    thin = {id(each) for layer in adapted for each in (layer.lora_A, layer.lora_B)}
    inside = [outer for block in blocks for outer in block.modules() if id(outer) not in thin]
    kept = KEPT[precision, trains and not adapted] * sum(map(_matrix_values, inside))
    return kept + trains * sum(_beside(layer, precision) for layer in adapted)


def _matrix_values(outer: nn.Module) -> int:
    """Values per token into and out of the matrices right inside a module."""
    return sum(_values(layer) for layer in outer.children() if isinstance(layer, nn.Linear))


def _beside(layer: Any, precision: Precision) -> float:
    """Bytes per token that the graph of an adapter keeps beside its layer's."""
    drops = any(isinstance(each, nn.Dropout) for each in layer.lora_dropout.values())
    between = sum(layer.r.values()) * (2 if precision == "bf16" else 4)
    return ADAPTED[precision, drops] * _values(layer) + float(between)


def _values(layer: Any) -> int:
    """Values per token into and out of a matrix."""
    return int(layer.in_features + layer.out_features)


def _kept_blocks(model: nn.Module) -> list[nn.Module]:
    """Blocks that hold a graph: from the first trained one on; in a frozen part all, as
    gradients pass through.
    """
    # What precedes and follows the blocks is a few layers among dozens, and is left out.
    blocks = find_blocks(model)[1] or [model]
    trained = [block for block in blocks if any(p.requires_grad for p in block.parameters())]
    return trained or blocks

"""The recipe: every setting of a run as one frozen value. Stages are values too; no code compares their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sailvit.core.config import Config
from sailvit.core.schedule import ScheduleConfig
from sailvit.core.watch import WatchConfig

Part = Literal["tower", "connector", "language"]
PARTS: tuple[Part, ...] = ("tower", "connector", "language")
NOT_FOLDERS = ("previous", "recipe")
"""Values of a stage's `start_from` that name no folder."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class ConnectorConfig(Config):
    """Pixel-unshuffle, LayerNorm, Linear, GELU, Linear."""

    merge: Count = 2
    """Patches merged per side; 2 turns 2x2 patches into one visual token of 4 x width."""
    hidden: Count | None = None
    """Width between the two linear layers; none means the language's width."""
    source: str | None = None
    """Folder of a trained connector to start from; none means fresh weights drawn from the recipe's seed."""


class ImageConfig(Config):
    """How images become tiles; whatever is left out comes from the tower's own preprocessor config."""

    size: Count | None = None
    """Height and width of a tile, in pixels."""
    mean: tuple[float, float, float] | None = None
    """Channel means, for pixels in 0..1."""
    std: tuple[float, float, float] | None = None
    """Channel standard deviations, for pixels in 0..1."""
    max_tiles: Count = 1
    """Most crops per image (InternVL2 rule: the grid of closest aspect ratio); 1 is fixed resolution."""
    thumbnail: bool = True
    """Whether an image cut into several tiles also gets one tile of the whole."""


class ModelConfig(Config):
    """The three parts and how they join."""

    tower: str
    """Hub id or local folder of any vision tower that `AutoModel` loads; `sailvit:` names a shipped checkpoint."""
    language: str
    """Hub id or local folder of any causal language model that `AutoModelForCausalLM` loads."""
    connector: ConnectorConfig = ConnectorConfig()
    """The connector between them."""
    image: ImageConfig = ImageConfig()
    """Tiles, and overrides of the tower's preprocessor config."""
    feature_layer: int = -1
    """Which hidden state of the tower feeds the connector; -1 is the last, -2 the one before."""
    placeholder: str = "<|image_pad|>"
    """Token that stands for one visual token; added to the tokenizer when missing."""
    revision: dict[Part, str] = {}
    """Hub revision per part, to pin a download."""
    trust_remote_code: bool = False
    """Whether a hub repository may run its own Python code on this machine."""


class SourceConfig(Config):
    """Where records come from; `format` names a registered reader."""

    format: str
    """Name of the reader: `llava`, `captions`, `world`, ..."""
    path: str | None = None
    """File or folder, for readers that read one; relative paths start at the recipe's folder."""
    images: str | None = None
    """Folder that relative image paths start from; none means the folder of `path`."""
    options: dict[str, Any] = {}
    """Settings of that reader, checked by it."""


class PortionConfig(Config):
    """One source's part in a stage's mixture."""

    share: Positive
    """Share of the samples, in any unit."""
    epochs: Positive | None = None
    """Most passes over the source; once it has had them, the others go on in their own proportion."""


class QuarantineConfig(Config):
    """How many unreadable records a run puts up with; each is left out of its pack, and the order stays as it was."""

    share: Share = 0.01
    """Largest share of the records read, per source and rank."""
    allow: Annotated[int, Field(ge=0)] = 10
    """Records that may be bad, per source and rank, before the share counts."""
    timeout: Positive | None = 60.0
    """Seconds after which reading one record is given up; none waits."""


class TrainConfig(Config):
    """How one part trains in a stage."""

    lr: NotNegative = 1.0
    """Share of the stage's learning rate; 0 freezes the part."""
    last_blocks: Count | None = None
    """Train only the last k transformer blocks that features come from, and what follows them; none trains the part."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor on the rate per layer down from what follows the blocks, which trains at the part's full rate: the k-th
    block from the end at its k-th power, embeddings one power below the first block; none treats all alike."""


class OptimConfig(Config):
    """AdamW and gradient clipping."""

    lr: Positive
    """Peak learning rate."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """Decay of the first and second moment."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    weight_decay: NotNegative = 0.05
    """Decoupled decay of matrices; vectors (biases, norms) are never decayed."""
    clip: Positive | None = 1.0
    """Largest global gradient norm; none leaves gradients as they are."""


class CheckpointConfig(Config):
    """When the training state is saved, and which states are kept."""

    every: Count | None = None
    """Steps between saves; none saves only at stage ends and when interrupted."""
    keep: Count = 2
    """Newest states that are kept; one more is there while the next is written."""
    best: bool = False
    """Whether the state with the lowest mean loss since the save before it is kept as well."""


class RecoveryConfig(Config):
    """What happens when losses or gradients are not finite, or jump."""

    streak: Count = 5
    """Skipped steps in a row after which the run goes back to its last checkpoint."""
    rollbacks: Annotated[int, Field(ge=0)] = 2
    """Times per stage that it may; then it stops and names the samples."""
    spike: Positive = 8.0
    """Robust z-score over the last 100 losses from which a loss is noted as a spike, with its samples."""


class ParallelConfig(Config):
    """How the processes of a run share the model's state; they always share the data."""

    mode: Literal["replicate", "shard", "hybrid"] = "replicate"
    """`replicate`: each holds the whole model; `shard`: weights, gradients and moments are split over all (FSDP2);
    `hybrid`: split within groups of `group` processes, replicated between them (HSDP)."""
    group: Count | None = None
    """Processes per group of `hybrid`; none takes those of one machine."""
    recompute: dict[Part, Literal["selective", "full"]] = {}
    """Activation checkpointing per part: `full` keeps each block's input alone, `selective` its matrix products too."""
    compile: bool = False
    """Whether every transformer block is compiled."""
    kernels: Literal["auto", "plain"] = "auto"
    """`auto` uses liger-kernel's fused ones for the language on a GPU where they are installed, unless blocks are
    compiled, which fuses too; `plain` does not."""
    offload: bool = False
    """Whether shards and their optimizer state live in CPU memory (with `shard` or `hybrid`)."""

    @model_validator(mode="after")
    def _does_something(self) -> ParallelConfig:
        if self.group is not None and self.mode != "hybrid":
            raise ValueError(f"`group` belongs to mode hybrid; the mode is {self.mode}: leave it out, or change `mode`")
        if self.offload and self.mode == "replicate":
            raise ValueError("`offload` moves shards, and mode replicate has none; set mode to shard or hybrid")
        return self


class Length(Config):
    """How long a stage lasts: exactly one of the three."""

    samples: Count | None = None
    """Records drawn; the stage ends with exactly this many."""
    tokens: Count | None = None
    """Packed tokens without padding; the stage ends with the first step that reaches it."""
    epochs: Positive | None = None
    """Passes over the stage's sources: epochs x their total records are drawn."""

    @model_validator(mode="after")
    def _one_unit(self) -> Length:
        given = [name for name in ("samples", "tokens", "epochs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of samples, tokens, epochs; found {' and '.join(given) or 'none'}")
        return self


class Stage(Config):
    """One stage of a run."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Names the stage's folder, curves and lines; nothing else depends on it."""
    train: dict[Part, TrainConfig]
    """The parts that train; a bare number is the share of the learning rate. Parts left out are frozen."""
    data: dict[str, PortionConfig] | list[str]
    """Sources with their shares of the samples (or just a number), or a list of sources mixed by their sizes."""
    temperature: Positive = 1.0
    """For a list of sources: shares go with size ** (1 / temperature), so that above 1 small sources count for more."""
    pack_tiles: Count | None = None
    """Most tiles in one pack, which bounds the tower's memory; none leaves it to the sequence length."""
    window: Count | None = None
    """Shards that are shuffled together, so that only they need be at hand; none shuffles each source as a whole."""
    objectives: dict[str, Positive] = {"next_token": 1.0}
    """Registered objectives with their weights in the loss."""
    optim: OptimConfig
    """Optimizer settings."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Learning rate over the stage."""
    length: Length
    """When the stage ends."""
    global_batch: Count
    """Packs per optimizer step, over all ranks and accumulation."""
    micro_batch: Count = 1
    """Packs per forward pass; the rest is accumulated, exactly."""
    start_from: dict[Part, str] = {}
    """Weights to start a part from: `previous` (default), `recipe` (what the model section names) or a folder."""
    save: tuple[Part, ...] = PARTS
    """Parts written as Hugging Face folders at the end of the stage."""

    @model_validator(mode="after")
    def _holds_together(self) -> Stage:
        if not self.data:
            raise ValueError("`data` names no source; give at least one of the recipe's `sources`")
        if self.micro_batch > self.global_batch:
            raise ValueError(
                f"micro_batch {self.micro_batch} is more than global_batch {self.global_batch}, all packs of a step"
            )
        if isinstance(self.data, dict) and self.temperature != 1.0:
            raise ValueError("`temperature` mixes a list of sources by their sizes; `data` gives shares: leave out one")
        return self

    @model_validator(mode="before")
    @classmethod
    def _bare_shares(cls, value: Any) -> Any:
        for field, key in (("train", "lr"), ("data", "share")):
            if isinstance(value, dict) and isinstance(value.get(field), dict):
                bare = {k: {key: v} if isinstance(v, int | float) else v for k, v in value[field].items()}
                value = {**value, field: bare}
        return value

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The mixture: a share for every source, given how many records each has."""
        if isinstance(self.data, dict):
            return {name: portion.share for name, portion in self.data.items()}
        return {name: float(sizes[name]) ** (1 / self.temperature) for name in self.data}

    def caps(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The most draws of every source that has a limit."""
        portions = self.data if isinstance(self.data, dict) else {}
        return {name: max(1, round(p.epochs * sizes[name])) for name, p in portions.items() if p.epochs is not None}

    def share(self, part: Part) -> float:
        """Share of the learning rate at which `part` trains; 0 when it is frozen."""
        return self.train[part].lr if part in self.train else 0.0


class Recipe(Config):
    """Everything that determines a run."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Names the run folder: `runs/<name>` unless another is given."""
    seed: int = 0
    """Root of every random stream of the run."""
    model: ModelConfig
    """Tower, connector and language."""
    sequence: Count
    """Length of a pack, in tokens."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """`bf16` runs forward and backward under autocast; weights and optimizer state are fp32 in both."""
    sources: dict[str, SourceConfig]
    """Named sources, mixed by the stages."""
    stages: list[Stage] = Field(min_length=1)
    """Run in order."""
    proof_steps: Count = 10
    """Steps after which a stage's first proof of training compares what moved with what was planned."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When the training state is saved, and which states are kept."""
    recovery: RecoveryConfig = RecoveryConfig()
    """What happens when losses or gradients are not finite, or jump."""
    resume: Literal["never", "auto"] = "never"
    """`auto` continues a run that is there, as `--resume` does, so that schedulers may start the same command again."""
    quarantine: QuarantineConfig = QuarantineConfig()
    """How many unreadable records the run puts up with."""
    parallel: ParallelConfig = ParallelConfig()
    """How the processes of a run share the model."""
    watch: WatchConfig = WatchConfig()
    """What the run looks at beside its losses, and where its curves go."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Loader processes per rank; 0 loads in the training process."""

    @model_validator(mode="after")
    def _names_hold_together(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"stage names must differ; found twice: {', '.join(sorted(doubled))}")
        for stage in self.stages:
            if unknown := [name for name in stage.data if name not in self.sources]:
                raise ValueError(
                    f"stage {stage.name} mixes source {unknown[0]!r}, which `sources` does not define"
                    f" (defined: {', '.join(self.sources) or 'none'})"
                )
        if self.watch.source is not None and self.watch.source not in self.sources:
            raise ValueError(f"watch.source names {self.watch.source!r}, which `sources` does not define")
        return self

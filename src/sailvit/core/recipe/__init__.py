"""The recipe: every setting of a run as one frozen value. Stages are values too; no code
compares their names.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sailvit.core.config import Config
from sailvit.core.monitoring import MonitoringConfig
from sailvit.core.recipe.data import PortionConfig, QuarantineConfig, SourceConfig
from sailvit.core.recipe.model import ConnectorConfig, ImageConfig, LoraConfig, ModelConfig
from sailvit.core.recipe.optim import OptimConfig, TrainConfig
from sailvit.core.recipe.running import (
    CheckpointConfig,
    Packing,
    ParallelConfig,
    RecoveryConfig,
)
from sailvit.core.recipe.stage import NOT_FOLDERS, Length, Stage
from sailvit.core.recipe.types import (
    PARTS,
    ConnectorKind,
    Count,
    FeatureJoin,
    NotNegative,
    Part,
    Positive,
    Precision,
    Share,
)

__all__ = [
    "NOT_FOLDERS",
    "PARTS",
    "CheckpointConfig",
    "ConnectorConfig",
    "ConnectorKind",
    "Count",
    "FeatureJoin",
    "ImageConfig",
    "Length",
    "LoraConfig",
    "ModelConfig",
    "NotNegative",
    "OptimConfig",
    "Packing",
    "ParallelConfig",
    "Part",
    "PortionConfig",
    "Positive",
    "Precision",
    "QuarantineConfig",
    "Recipe",
    "RecoveryConfig",
    "Share",
    "SourceConfig",
    "Stage",
    "TrainConfig",
]


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
    precision: Precision = "auto"
    """`bf16` runs forward and backward under autocast; weights and optimizer state are fp32 in
    both. `auto` takes bf16 where the device multiplies such matrices faster, and fp32
    elsewhere; the run's recipe names what was taken."""
    sources: dict[str, SourceConfig]
    """Named sources, mixed by the stages."""
    stages: list[Stage] = Field(min_length=1)
    """Run in order."""
    proof_steps: Count = 10
    """Steps after which a stage's first proof of training compares what moved with what was
    planned."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When the training state is saved, and which states are kept."""
    recovery: RecoveryConfig = RecoveryConfig()
    """What happens when losses or gradients are not finite, or jump."""
    resume: Literal["never", "auto"] = "never"
    """`auto` continues a run that is there, as `--resume` does, so that schedulers may start
    the same command again."""
    quarantine: QuarantineConfig = QuarantineConfig()
    """How many unreadable records the run tolerates."""
    parallel: ParallelConfig = ParallelConfig()
    """How the processes of a run share the model."""
    monitoring: MonitoringConfig = MonitoringConfig()
    """What is measured beside the losses, and where the numbers are logged."""
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
        if self.monitoring.source is not None and self.monitoring.source not in self.sources:
            raise ValueError(
                f"monitoring.source names {self.monitoring.source!r}, which `sources` does not define"
            )
        self._refuse_adapters_without_use()
        return self

    def _refuse_adapters_without_use(self) -> None:
        if self.model.lora is None:
            return
        if not any(stage.share("language") for stage in self.stages):
            raise ValueError(
                "model.lora gives the language adapters, and no stage trains the language: add it"
                " to a stage's `train`, or leave model.lora out"
            )
        for stage in self.stages:
            start = stage.start_from.get("language", "previous")
            if start not in NOT_FOLDERS:
                raise ValueError(
                    f"stage {stage.name} starts the language from {start}, but with model.lora it"
                    " stays what model.language names: name the folder there, or leave model.lora out"
                )

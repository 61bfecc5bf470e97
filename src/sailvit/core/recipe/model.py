"""Settings of the three parts and of how images become tiles."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, field_validator, model_validator

from sailvit.core.config import Config
from sailvit.core.layout import PLACEHOLDER
from sailvit.core.recipe.types import ConnectorKind, Count, FeatureJoin, Part, Positive, Token


class ConnectorConfig(Config):
    """How patch features become visual tokens."""

    kind: ConnectorKind = "merge_mlp"
    """`merge_mlp`: merge, LayerNorm, Linear, GELU, Linear, as in the paper, InternVL and LFM2-VL.
    `mlp`: the same without the norm; with merge 1 it is LLaVA's. `swiglu`: with a gated MLP, as
    in AyaVision. `norm_merge_mlp`: RMSNorm, a linear merge, Linear, GELU, Linear, as in
    Mistral3."""
    merge: Count = 2
    """Patches merged per side; 2 turns 2x2 patches into one visual token of 4 x width. Where it
    is left out, it is 1 for `mlp`."""
    hidden: Count | None = None
    """Width between the two linear layers; None means the language's width."""
    source: str | None = None
    """Folder of a trained connector to start from; None means fresh weights drawn from the
    recipe's seed."""

    @model_validator(mode="wrap")
    @classmethod
    def _merge_of_kind(
        cls, given: Any, validate: ModelWrapValidatorHandler[ConnectorConfig]
    ) -> ConnectorConfig:
        if not isinstance(given, dict) or given.get("kind") != "mlp" or "merge" in given:
            return validate(given)
        # LLaVA's connector merges no patches.
        made = validate({"merge": 1, **given})
        # It counts as left out, so that another kind may be set.
        made.model_fields_set.discard("merge")
        return made


class ImageConfig(Config):
    """How images become tiles; whatever is left out comes from the tower's own preprocessor
    config.
    """

    mode: Literal["fixed", "tiled", "native"] | None = None
    """`fixed`: every image is resized to one square tile; `tiled`: it is cut into up to
    `max_tiles` of them; `native`: it keeps its aspect ratio and about its size, as one grid of
    patches. None: tiled where `max_tiles` is more than 1, else fixed."""
    size: Count | None = None
    """Height and width of a tile, in pixels; in native mode the size at which position
    embeddings are not interpolated."""
    mean: tuple[float, float, float] | None = None
    """Channel means, for pixels in 0..1."""
    std: tuple[float, float, float] | None = None
    """Channel standard deviations, for pixels in 0..1."""
    max_tiles: Count = 1
    """Most crops per image (InternVL2 rule: the grid of closest aspect ratio); 1 is fixed
    resolution."""
    thumbnail: bool = True
    """Whether an image cut into several tiles also gets one tile of the whole."""
    wrap: tuple[Token, Token] | None = None
    """Tokens before and after the visual tokens of an image, such as `[<img>, </img>]` of
    InternVL and SAIL-VL; added to the tokenizer when missing. None: none."""
    newline: bool = False
    """Whether a line break parts an image from the text or image behind it; nothing is added
    where the text begins with one."""
    max_patches: Count = 16_384
    """Most patches of an image in native mode, before merging; larger images are scaled down.
    The default is that of the paper: 1792 x 1792 px with patches of 14 px."""
    min_patches: Count = 16
    """Fewest patches of an image in native mode; smaller images are scaled up."""

    @property
    def native(self) -> bool:
        """Whether images keep their aspect ratio."""
        return self.mode == "native"

    @model_validator(mode="after")
    def _consistent(self) -> ImageConfig:
        if self.mode in ("fixed", "native") and self.max_tiles > 1:
            raise ValueError(
                f"mode is {self.mode}, so no image is cut, but max_tiles is {self.max_tiles};"
                " leave max_tiles out or set mode to tiled"
            )
        if self.mode == "tiled" and self.max_tiles == 1:
            raise ValueError("mode is tiled, but max_tiles is 1; set it to 2 or more, such as 6")
        if self.min_patches > self.max_patches:
            raise ValueError(
                f"min_patches {self.min_patches} is more than max_patches {self.max_patches};"
                " lower min_patches"
            )
        return self


class LoraConfig(Config):
    """Adapters through which the language trains while its own weights stay as they are (LoRA,
    arXiv 2106.09685).
    """

    rank: Count = 16
    """Width between the two matrices of an adapter."""
    alpha: Positive | None = None
    """What an adapter adds is multiplied by alpha / rank. None: twice the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapter's inputs that are dropped while it trains."""
    target: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which matrices get an adapter: every linear layer but the head, or the layers whose names
    end like this, such as `[q_proj, v_proj]`."""
    keep: bool = False
    """Whether a stage also saves the adapters by themselves, as peft's own folder
    `language/adapter`. The language is saved with its adapters merged in either case."""

    @field_validator("target")
    @classmethod
    def _names(cls, target: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if target == ():
            raise ValueError("lora.target is an empty list; name layers, or leave it out")
        return target


class ModelConfig(Config):
    """The three parts and how they join."""

    tower: str
    """Hub id or local folder of any vision tower, by itself or inside a dual encoder or a
    multimodal model; `sailvit:` names a shipped checkpoint."""
    language: str
    """Hub id or local folder of any causal language model that `AutoModelForCausalLM` loads."""
    lora: LoraConfig | None = None
    """Adapters of the language; stages that train it train these alone. None: stages train the
    language's own weights."""
    connector: ConnectorConfig = ConnectorConfig()
    """The connector between them."""
    image: ImageConfig = ImageConfig()
    """Tiles, and overrides of the tower's preprocessor config."""
    feature_layer: int | tuple[int, ...] = -1
    """Which hidden state of the tower feeds the connector, or a list of them; -1 is the last, -2
    the one before, 0 what enters the first block."""
    feature_join: FeatureJoin = "concat"
    """How the states of a list of layers become one: `concat` side by side, `mean` averaged."""
    feature_norm: bool | None = None
    """Whether states go through the tower's final norm. None: the last one does, earlier ones do
    not."""
    placeholder: str = PLACEHOLDER
    """Token that stands for one visual token; added to the tokenizer when missing."""
    chat_date: datetime.date | None = None
    """Date that dated chat templates write (`2026-01-31`); None means the day on which the run
    began."""
    revision: dict[Part, str] = {}
    """Hub revision per part, to pin a download."""
    trust_remote_code: bool = False
    """Whether a hub repository may run its own Python code on this machine."""

    @field_validator("feature_layer")
    @classmethod
    def _layers(cls, layers: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if layers == ():
            raise ValueError("feature_layer is an empty list; name a layer, such as -1, the last")
        if isinstance(layers, tuple) and len(set(layers)) < len(layers):
            raise ValueError(f"feature_layer {list(layers)} names a layer twice; name each once")
        return layers

    @property
    def day(self) -> datetime.date:
        """The day that chat templates are given as today's."""
        return self.chat_date or datetime.date.today()

"""Any vision tower, a connector, and any causal language model as one multimodal model.

Tower and language are transformers' own classes; the connector and what joins the three are
here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_sailvit import SailvitConfig
from .tower_sailvit import make_tower, native_features, patch_tokens


class SailvitProjector(nn.Module):
    """The connector: merges neighbouring patches and maps them to the language's width."""

    def __init__(self, config: SailvitConfig) -> None:
        super().__init__()
        given = config.connector
        self.kind, self.side = given["kind"], given["merge"]
        self.columns = given["column_major"]
        width, hidden, eps = given["tower_width"], given["hidden"], given["eps"]
        merged = inner = width * self.side**2
        self.act = ACT2FN[given["activation"]]
        if self.kind == "norm_merge_mlp":
            self.norm: nn.Module = nn.RMSNorm(width, eps=eps)
            self.merge = nn.Linear(merged, width, bias=False)
            inner = width
        elif self.kind != "mlp":
            self.norm = nn.LayerNorm(merged, eps=eps)
        gates = 2 if self.kind == "swiglu" else 1
        self.up = nn.Linear(inner, gates * hidden, bias=given["bias"])
        self.down = nn.Linear(hidden, given["language_width"], bias=given["bias"])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Visual tokens float[I, V, D], of shape (tiles, tokens, language width), of patch
        features float[I, P, C].
        """
        if self.kind == "norm_merge_mlp":
            features = self.norm(features)
        tiles, patches, width = features.shape
        rows = round(patches**0.5) // self.side
        grid = features.view(tiles, rows, self.side, rows, self.side, width).transpose(2, 3)
        # The order inside a merged patch: row by row, channels innermost.
        merged = grid.reshape(tiles, rows**2, self.side**2, width)
        if self.kind == "norm_merge_mlp":
            # This one's matrix has the channels outermost.
            made = self._mlp(self.merge(merged.transpose(2, 3).flatten(2)))
        else:
            flat = merged.flatten(2)
            made = self._mlp(flat if self.kind == "mlp" else self.norm(flat))
        if self.columns:
            made = made.view(tiles, rows, rows, -1).transpose(1, 2).flatten(1, 2)
        return made

    def _mlp(self, merged: torch.Tensor) -> torch.Tensor:
        if self.kind == "swiglu":
            values, gates = self.up(merged).chunk(2, dim=-1)
            gated: torch.Tensor = self.down(self.act(gates) * values)
            return gated
        plain: torch.Tensor = self.down(self.act(self.up(merged)))
        return plain


class SailvitPreTrainedModel(PreTrainedModel):
    """What both models share; attention is the parts' own, by transformers' interface."""

    config_class: type[SailvitConfig] = SailvitConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]


class SailvitModel(SailvitPreTrainedModel):
    """Tower, connector and language without its head."""

    def __init__(self, config: SailvitConfig, language_model: Any = None) -> None:
        super().__init__(config)
        self.vision_tower = make_tower(config.vision_config)
        self.multi_modal_projector = SailvitProjector(config)
        self.language_model = language_model or AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language's table of token embeddings."""
        table: nn.Module = self.language_model.get_input_embeddings()
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language's table of token embeddings."""
        self.language_model.set_input_embeddings(value)

    def get_image_features(
        self, pixel_values: torch.Tensor, image_grids: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        """The patch features of tiles float[I, 3, H, W]; its `pooler_output` are the visual
        tokens float[I, V, D]. In native resolution `image_grids` are int64[n, 2], rows and
        columns of each image's tiles.
        """
        pixels, image = pixel_values.to(self.vision_tower.dtype), self.config.image
        if not image.get("native"):
            features = patch_tokens(self.vision_tower, image, pixels, kwargs)
        elif image_grids is None:
            raise ValueError("found no image_grids; expected those that the processor gives")
        else:
            features = native_features(self.vision_tower, image, pixels, image_grids, kwargs)
        visual = self.multi_modal_projector(features)
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=visual)

    def embed(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_grids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Input embeddings float[B, T, D] of tokens int64[B, T], visual tokens in their places."""
        embedded: torch.Tensor = self.get_input_embeddings()(input_ids)
        if pixel_values is None:
            return embedded
        made = self.get_image_features(pixel_values, image_grids)
        visual = made.pooler_output.flatten(0, 1).to(embedded)
        places = input_ids == self.config.image_token_id
        if int(places.sum()) != len(visual):
            raise ValueError(
                f"the text has {int(places.sum())} image tokens, and {len(pixel_values)} tiles"
                f" give {len(visual)} visual tokens; make both with this model's processor"
            )
        return embedded.masked_scatter(places[..., None], visual)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        *,
        image_grids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language's output: hidden states float[B, T, D] for tokens int64[B, T] and tiles
        float[I, 3, H, W].
        """
        kwargs.pop("mm_token_type_ids", None)
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("found neither; expected input_ids or inputs_embeds")
            inputs_embeds = self.embed(input_ids, pixel_values, image_grids)
        return self.language_model(inputs_embeds=inputs_embeds, **kwargs)


class SailvitForConditionalGeneration(SailvitPreTrainedModel, GenerationMixin):
    """A multimodal model that answers; scores and answers are the language's own."""

    def __init__(self, config: SailvitConfig) -> None:
        super().__init__(config)
        causal = AutoModelForCausalLM.from_config(config.text_config)
        # Llama 4's class names its base model otherwise than transformers looks for it.
        base = causal.model if causal.base_model is causal else causal.base_model
        self.model = SailvitModel(config, base)
        self.lm_head = causal.get_output_embeddings()
        # In a tuple, as its modules are the two above and must not be counted twice. Its own
        # forward and generate are kept: some languages scale or cap scores, or have a cache of
        # their own.
        self._causal = (causal,)
        table = causal.get_input_embeddings()
        name = next(name for name, module in self.named_modules() if module is table)
        self._tied_weights_keys = {"lm_head.weight": f"{name}.weight"}
        self.post_init()

    @property
    def causal(self) -> Any:
        """The language with its head."""
        return self._causal[0]

    @property
    def num_image_token(self) -> int:
        """Visual tokens of one tile."""
        image, merge = self.config.image, self.config.connector["merge"]
        side = merge if image.get("native") else image["size"] // image["patch"]
        return int((side // merge) ** 2)

    def get_input_embeddings(self) -> nn.Module:
        """The language's table of token embeddings."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language's table of token embeddings."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language's head."""
        head: nn.Module = self.lm_head
        return head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replace the language's head."""
        self.lm_head = value
        self.causal.set_output_embeddings(value)

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """The patch features of tiles float[I, 3, H, W]; its `pooler_output` are the visual
        tokens float[I, V, D].
        """
        return self.model.get_image_features(pixel_values, **kwargs)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        *,
        image_grids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language's output, with logits float[B, T, N], for tokens int64[B, T] and tiles
        float[I, 3, H, W].
        """
        kwargs.pop("mm_token_type_ids", None)
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("found neither; expected input_ids or inputs_embeds")
            inputs_embeds = self.model.embed(input_ids, pixel_values, image_grids)
        return self.causal(inputs_embeds=inputs_embeds, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: Any = None,
        *,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Prompts and answers int64[B, T + A], as transformers' generate gives them."""
        kwargs.pop("mm_token_type_ids", None)
        tokens = inputs if input_ids is None else input_ids
        if tokens is not None:
            kwargs.setdefault("inputs_embeds", self.model.embed(tokens, pixel_values, image_grids))
        # What a given config leaves open, such as the ends of answers, is filled from here.
        self.causal.generation_config = self.generation_config
        config = copy.deepcopy(generation_config or self.generation_config)
        # Settings of generation move into the config; what remains goes to the language.
        others = config.update(**kwargs)
        return self.causal.generate(tokens, generation_config=config, **others)

    def chat(
        self,
        tokenizer: Any,
        pixel_values: torch.Tensor | None,
        question: str,
        generation_config: Any = None,
        *,
        history: list[tuple[str, str]] | None = None,
        return_history: bool = False,
        num_patches_list: list[int] | None = None,
        verbose: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The answer to a question about tiles float[I, 3, H, W], as InternVL's `chat` gives it.

        `<image>` marks in the questions say where images go; without any they stand before the
        first. `num_patches_list` holds each image's number of tiles; None: all are of one. In
        native resolution give `image_grids` too, as the image processor does.
        """
        del verbose
        known = list(history or [])
        text = tokenizer.apply_chat_template(
            _messages([*known, (question, "")], shown=pixel_values is not None),
            tokenize=False,
            add_generation_prompt=True,
        )
        if pixel_values is not None:
            text = self._with_tiles(text, tokenizer, num_patches_list or [len(pixel_values)])
        given = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(self.device)
        if isinstance(generation_config, Mapping):
            kwargs, generation_config = {**generation_config, **kwargs}, None
        made = self.generate(
            generation_config=generation_config,
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            pixel_values=pixel_values,
            **kwargs,
        )
        length = given["input_ids"].shape[1]
        answer = tokenizer.decode(made[0, length:], skip_special_tokens=True).strip()
        return (answer, [*known, (question, answer)]) if return_history else answer

    def _with_tiles(self, text: str, tokenizer: Any, tiles: list[int]) -> str:
        """The text with as many image tokens as each image's tiles need."""
        mark = tokenizer.convert_ids_to_tokens(self.config.image_token_id)
        first, last = self.config.image["wrap"] or ("", "")
        before, *after = text.split(mark)
        if len(after) != len(tiles):
            raise ValueError(f"{len(after)} images in the text, and tiles of {len(tiles)}")
        runs = [f"{first}{mark * (count * self.num_image_token)}{last}" for count in tiles]
        return before + "".join(run + rest for run, rest in zip(runs, after, strict=True))


def _messages(told: list[tuple[str, str]], *, shown: bool) -> list[dict[str, Any]]:
    """Chat messages of questions and answers; the last answer is still to be given."""
    messages: list[dict[str, Any]] = []
    if shown and not any("<image>" in asked for asked, _ in told):
        told = [(f"<image>\n{told[0][0]}", told[0][1]), *told[1:]]
    for asked, answer in told:
        pieces: list[dict[str, Any]] = []
        for place, text in enumerate(asked.split("<image>")):
            pieces += [{"type": "image"}] * bool(place)
            pieces += [{"type": "text", "text": text}] * bool(text)
        messages.append({"role": "user", "content": pieces})
        messages.append({"role": "assistant", "content": answer})
    return messages[:-1]

"""Config of a vision tower, a connector and a language model that were trained together."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig


class SailvitConfig(PretrainedConfig):
    """What config.json holds of a multimodal model."""

    model_type = "sailvit_mllm"
    sub_configs = {"text_config": AutoConfig, "vision_config": AutoConfig}

    def __init__(
        self,
        vision_config: Any = None,
        text_config: Any = None,
        connector: dict[str, Any] | None = None,
        image: dict[str, Any] | None = None,
        image_token_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the parts' configs, and how images reach the language.

        Args:
            vision_config: config of the tower.
            text_config: config of the language.
            connector: `kind`, `tower_width`, `language_width`, `hidden`, `merge`,
                `activation`, `bias`, `eps` and `column_major`.
            image: `size` and `patch` in pixels, `prefix` (tokens before the patches),
                `layers` (states that the connector reads), `join` (concat or mean),
                `last_normed` (whether the last state is taken after the final norm), `inputs`
                (pixels, patches, or ordered: pixels and the order of their patches),
                `norm` (the module that earlier states go through too, or None), `native`
                (whether images keep their aspect ratio), `table` (the module whose positions
                are resized to other grids, or None), `interpolate` (whether the model has to be
                told so), `one_by_one`, `wrap` (tokens around an image, or None), `newline`
                (whether the chat template parts images by lines).
            image_token_id: id of the token that stands for one visual token.
            kwargs: what every config of transformers holds.
        """
        self.vision_config = _config(vision_config, "siglip_vision_model")
        self.text_config = _config(text_config, "llama")
        self.connector = connector or {}
        self.image = image or {}
        self.image_token_id = image_token_id
        super().__init__(**kwargs)


def _config(given: Any, usual: str) -> Any:
    """The config that a dictionary describes; transformers makes empty ones to compare with."""
    if isinstance(given, PretrainedConfig):
        return given
    values = dict(given or {})
    return AutoConfig.for_model(values.pop("model_type", usual), **values)

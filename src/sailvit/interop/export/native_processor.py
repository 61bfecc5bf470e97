"""Processors of transformers that write training's prompts."""

from __future__ import annotations

from pathlib import Path

from sailvit.core.run import read_json, write_json
from sailvit.interop.export.chat_template import export_template
from sailvit.interop.export.texts import write_texts
from sailvit.interop.export.trained import Trained
from sailvit.interop.layouts.native import AROUND
from sailvit.models.towers.preprocessing import trained_preprocessor


def write_processor(trained: Trained, folder: Path) -> None:
    """Write image processor, tokenizer and chat template: LLaVA's for images of one tile, else
    InternVL's. The config is told what stands around images, for those who read it back.
    """
    bundle = trained.bundle
    layout, tower = bundle.layout, bundle.mllm.tower
    around = {"wrap": layout.wrap, "newline": layout.newline}
    config = folder / "config.json"
    write_json(config, {**read_json(config), AROUND: around})
    if layout.max_tiles > 1:
        _write_tiles(trained, folder)
        return
    # Named, as transformers would take the class's usual one, which cuts images.
    images = trained_preprocessor(bundle.preprocessor, tower, "ViTImageProcessor")
    write_json(folder / "preprocessor_config.json", images)
    # LLaVA's processor writes a run of image tokens per image, whatever the model's class; a
    # patch of its is what becomes one visual token.
    values = {
        "processor_class": "LlavaProcessor",
        "image_token": layout.placeholder,
        "patch_size": tower.patch * bundle.mllm.connector.config.merge,
        "vision_feature_select_strategy": "full",
        "num_additional_image_tokens": 0,
    }
    write_json(folder / "processor_config.json", values)
    template = export_template(bundle.tokenizer, layout, bundle.day, wrapped=True)
    write_texts(trained, folder, template, bare=True)


def _write_tiles(trained: Trained, folder: Path) -> None:
    """Write InternVL's processor, which cuts tiles by training's rule."""
    bundle = trained.bundle
    layout, said = bundle.layout, bundle.mllm.tower.preprocessing
    size = {"height": said.size, "width": said.size}
    images = {
        "image_processor_type": "GotOcr2ImageProcessor",
        "size": size,
        "crop_to_patches": True,
        "min_patches": 1,
        "max_patches": layout.max_tiles,
        # Bicubic, as in training.
        "resample": 3,
        "image_mean": list(said.mean),
        "image_std": list(said.std),
        "do_rescale": said.scale != 1,
        "rescale_factor": 1 / said.scale,
    }
    write_json(folder / "preprocessor_config.json", images)
    videos = {"video_processor_type": "InternVLVideoProcessor", "size": size}
    write_json(folder / "video_preprocessor_config.json", videos)
    processor = {"processor_class": "InternVLProcessor", "image_seq_length": layout.tokens_per_tile}
    write_json(folder / "processor_config.json", processor)
    first, last = layout.wrap or ("", "")
    write_texts(
        trained,
        folder,
        export_template(bundle.tokenizer, layout, bundle.day),
        bare=True,
        start_image_token=first,
        end_image_token=last,
        context_image_token=layout.placeholder,
        video_token="<video>",
    )

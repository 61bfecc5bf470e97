"""Runs in a process of its own, without sailvit: loads an export as a user would and answers.

Called by path: `python -I reload_model.py EXPORT WORK`. WORK holds `cases.json` and
`expected.safetensors`; `found.safetensors` and `found.json` are written there.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
)

Found = dict[str, torch.Tensor]


@torch.no_grad()
def reload(export: Path, work: Path) -> None:
    """Load the export and write what it gives for the cases."""
    cases = json.loads((work / "cases.json").read_text(encoding="utf-8"))
    expected = load_file(work / "expected.safetensors")
    load = _tower if cases["kind"] == "tower" else _model
    found = load(export, cases, expected)
    save_file({name: t.contiguous() for name, t in found.items()}, work / "found.safetensors")
    told = {"sailvit": "sailvit" in sys.modules}
    (work / "found.json").write_text(json.dumps(told), encoding="utf-8")


def _tower(export: Path, cases: dict[str, Any], expected: Found) -> Found:
    """Pixels and features of each image."""
    processor = AutoImageProcessor.from_pretrained(export)
    kind = _class_of(AutoConfig.from_pretrained(export))
    model = kind.from_pretrained(export, dtype=torch.float32, use_safetensors=True).eval()
    found: Found = {}
    for case in cases["cases"]:
        name = case["name"]
        (image,) = case["images"]
        inputs = dict(processor(Image.open(image), return_tensors="pt"))
        found[f"{name}.pixels"] = inputs["pixel_values"]
        _same_pixels(inputs, expected, name)
        options: dict[str, Any] = {}
        if cases["interpolate"]:
            options["interpolate_pos_encoding"] = True
        if cases["ordered"]:
            options["noise"] = torch.arange(float(cases["ordered"]))[None]
        if "image_grid_thw" in inputs:
            inputs = {
                "hidden_states": inputs["pixel_values"],
                "grid_thw": inputs["image_grid_thw"],
            }
        found[f"{name}.features"] = model(**inputs, **options).last_hidden_state
    return found


def _class_of(config: Any) -> Any:
    """`AutoModel`, or the class that a config names where `AutoModel` has no entry for it."""
    if type(config) in MODEL_MAPPING:
        return AutoModel
    module = type(config).__module__.replace(".configuration_", ".modeling_")
    return getattr(importlib.import_module(module), config.architectures[0])


def _model(export: Path, cases: dict[str, Any], expected: Found) -> Found:
    """Prompt tokens, pixels, features, visual tokens, logits and a greedy answer of each
    conversation, and the answers of all in one batch.
    """
    remote = cases["remote"]
    processor = AutoProcessor.from_pretrained(export, trust_remote_code=remote)
    model = AutoModelForImageTextToText.from_pretrained(
        export, dtype=torch.float32, use_safetensors=True, trust_remote_code=remote
    ).eval()
    own = model.generation_config
    # Greedy and plain: what a config adds, such as a penalty on repeats, would hide differences.
    model.generation_config = GenerationConfig(
        eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    options = {"max_new_tokens": cases["longest"], "do_sample": False}
    found: Found = {}
    for case in cases["cases"]:
        name = case["name"]
        inputs = _inputs(processor, _with_images(case))
        found[f"{name}.tokens"] = inputs["input_ids"][0]
        if "pixel_values" in inputs:
            found[f"{name}.pixels"] = inputs["pixel_values"]
            _same_pixels(inputs, expected, name)
        if not _alike(found, expected, name):
            # The difference is known; a model may not even run on such inputs.
            return found
        with _watched(model, cases["modules"]) as seen:
            found[f"{name}.logits"] = model(**inputs).logits[0]
        found |= {f"{name}.{what}": tensor for what, tensor in seen.items()}
        made = model.generate(**inputs, **options)
        found[f"{name}.answer"] = made[0, inputs["input_ids"].shape[1] :]
    if cases["batched"]:
        found["batch.answer"] = _batch(model, processor, cases, expected, options)
    return found


def _batch(
    model: Any, processor: Any, cases: dict[str, Any], expected: Found, options: dict[str, Any]
) -> torch.Tensor:
    """Answers int64[B, A] to all conversations at once, padded on the left."""
    inputs = _inputs(processor, *map(_with_images, cases["cases"]))
    names = [f"{case['name']}.pixels" for case in cases["cases"]]
    if pixels := [expected[name] for name in names if name in expected]:
        # The expected pixels again, as in each single question.
        inputs["pixel_values"] = torch.cat(pixels)
    made: torch.Tensor = model.generate(**inputs, **options)
    return made[:, inputs["input_ids"].shape[1] :]


def _inputs(processor: Any, *conversations: Any) -> dict[str, Any]:
    """A processor's tensors for conversations."""
    several = len(conversations) > 1
    made = processor.apply_chat_template(
        list(conversations) if several else conversations[0],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True} if several else {},
    )
    return dict(made)


def _with_images(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The case's messages, with opened images in their pieces."""
    images = iter(case["images"])
    return [
        {
            **message,
            "content": [
                {**piece, "image": Image.open(next(images))} if piece["type"] == "image" else piece
                for piece in message["content"]
            ],
        }
        for message in case["messages"]
    ]


def _same_pixels(inputs: dict[str, Any], expected: Found, name: str) -> None:
    """Go on with the expected pixels where the own ones are near, so that what comes later
    shows the weights' errors alone.
    """
    known = expected[f"{name}.pixels"]
    if inputs["pixel_values"].shape == known.shape:
        inputs["pixel_values"] = known


def _alike(found: Found, expected: Found, name: str) -> bool:
    """Whether the prompt's tokens are the expected ones, and pixels of the expected shape."""
    shown = [tensors.get(f"{name}.pixels", torch.empty(0)).shape for tensors in (found, expected)]
    tokens = f"{name}.tokens"
    return shown[0] == shown[1] and torch.equal(found[tokens], expected[tokens])


@contextmanager
def _watched(model: Any, modules: dict[str, str]) -> Iterator[Found]:
    """What modules of the model give while the block runs."""
    seen: Found = {}

    def keep(what: str) -> Any:
        """A hook that keeps a module's output under a name."""

        def hook(module: Any, given: Any, made: Any) -> None:
            """Keep the output."""
            del module, given
            tensor = made if isinstance(made, torch.Tensor) else made.last_hidden_state
            # AyaVision's connector keeps rows and columns apart.
            apart = what == "visual" and tensor.ndim == 4
            seen[what] = (tensor.flatten(1, 2) if apart else tensor).clone()

        return hook

    handles = [
        model.get_submodule(path).register_forward_hook(keep(what))
        for what, path in modules.items()
    ]
    yield seen
    for handle in handles:
        handle.remove()


if __name__ == "__main__":
    reload(Path(sys.argv[1]), Path(sys.argv[2]))

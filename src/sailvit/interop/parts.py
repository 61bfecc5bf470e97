"""Tower, connector and language taken out of a multimodal checkpoint, without its own code.

Weights are read and written tensor by tensor, so that memory holds one of them, whatever the
model's size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from sailvit.core.errors import ModelError
from sailvit.core.recipe import PARTS, Part
from sailvit.core.run import MODEL_FILE, write_json
from sailvit.interop.layouts.chat import is_chat, plan_chat
from sailvit.interop.layouts.native import is_native, native_types, plan_native
from sailvit.interop.layouts.own import is_own, plan_own
from sailvit.interop.new_folder import new_folder
from sailvit.interop.reading.files import copy_generation, copy_tokenizer, read_optional
from sailvit.interop.reading.plans import ModelPlan, PartPlan, Refusal
from sailvit.interop.reading.prompts import END
from sailvit.interop.reading.stored import Names, read_names
from sailvit.interop.weights import MOST, write_weights
from sailvit.models.guards.checkpoint_files import folder_problems
from sailvit.models.guards.errors import ForeignErrors

MODEL = "model.yaml"
"""File of a recipe's model section that names the parts."""


@dataclass(frozen=True)
class TakenParts:
    """What was taken out of a checkpoint."""

    layout: str
    """The checkpoint's layout."""
    folders: dict[Part, Path]
    """The parts' new folders."""
    refused: dict[Part, str]
    """Why a part was not taken out."""
    left_out: tuple[str, ...]
    """The checkpoint's tensors that belong to no part."""
    notes: tuple[str, ...]
    """What a user has to know, a sentence each."""


def take_parts(source: str, out: Path, *, shard: int = MOST) -> TakenParts:
    """Write the parts of a multimodal model, a folder or hub id, to folders in the new folder
    `out`, and the model section of a recipe that names them.

    Args:
        source: Folder or hub id of the model.
        out: New folder.
        shard: Most bytes of a file of weights.

    Raises:
        ModelError: the layout is not known, its files are damaged, or no part can be taken out.
        RunError: `out` is there already and holds something, or it cannot be written.
    """
    with new_folder(out) as draft:
        folder = _fetched(source)
        # Checked as a language's: its message names AutoModel's class where weights are pickled.
        for problem in folder_problems("language", str(folder)):
            raise ModelError(f"cannot read the model in {folder}: {problem}")
        names = read_names(folder)
        plan = _plan(source, folder, names)
        kept, refused = _sorted(plan, source)
        for part, each in kept.items():
            (draft / part).mkdir()
            each.config.save_pretrained(draft / part)
            write_weights(draft / part, each.pieces, most=shard)
        _write_rest(plan, folder, draft, kept)
        _write_model(plan, draft, out, kept)
    notes = (*plan.notes, *(note for each in kept.values() for note in each.notes))
    used = {name for each in kept.values() for name in each.used}
    # A refused part has used none, so all of its tensors would seem left over.
    left = () if refused else tuple(sorted(names.keys() - used))
    return TakenParts(plan.layout, {part: out / part for part in kept}, refused, left, notes)


def _sorted(plan: ModelPlan, source: str) -> tuple[dict[Part, PartPlan], dict[Part, str]]:
    """The parts that can be taken out, and why the others cannot."""
    planned = {part: getattr(plan, part) for part in PARTS}
    kept = {part: each for part, each in planned.items() if isinstance(each, PartPlan)}
    refused = {part: each.reason for part, each in planned.items() if isinstance(each, Refusal)}
    if not kept:
        told = "".join(f"\n  {part}: {reason}" for part, reason in refused.items())
        raise ModelError(f"no part can be taken out of {source}:{told}")
    return kept, refused


def _fetched(source: str) -> Path:
    """The model's files: a folder, or what a hub id holds of configs, tokenizer and
    safetensors.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or source.startswith((".", "~")):
        raise ModelError(
            f"there is no folder {source}; name one that holds a saved model, or a hub id"
        )
    with ForeignErrors(
        f"cannot download {source!r}",
        "; check the name and the connection, or name a folder with a downloaded copy",
    ):
        kept = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
        return Path(snapshot_download(source, allow_patterns=kept))


def _plan(source: str, folder: Path, names: Names) -> ModelPlan:
    config = read_optional(folder / "config.json")
    if is_chat(config):
        return plan_chat(config, names, source, folder)
    if is_native(config):
        return plan_native(config, names, source, folder)
    if is_own(config):
        return plan_own(config, names, source, folder)
    raise ModelError(
        f"{source} is a {config.get('model_type')}; expected InternVL's or SAIL-VL's chat layout"
        f" (internvl_chat, sailvl) or one of {', '.join(native_types())}. A recipe's model.tower"
        " and model.language take the parts of other multimodal models by themselves"
    )


def _write_rest(plan: ModelPlan, folder: Path, draft: Path, kept: dict[Part, PartPlan]) -> None:
    """Write what stands beside the weights: preprocessor config, tokenizer, generation."""
    if "tower" in kept:
        side = plan.preprocessor["size"]
        write_json(
            draft / "tower" / "preprocessor_config.json",
            {
                "image_processor_type": "ViTImageProcessor",
                "do_resize": True,
                "size": {"height": side, "width": side},
                "resample": 3,
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": True,
                "image_mean": list(plan.preprocessor["image_mean"]),
                "image_std": list(plan.preprocessor["image_std"]),
            },
        )
    if "language" in kept:
        tokenizer = copy_tokenizer(folder, draft / "language", plan.chat_template)
        # Only formats that are known here end a turn with this token.
        known = plan.chat_template is not None
        ends = tokenizer.get_vocab().get(END) if known else None
        copy_generation(folder, draft / "language", ends)


def _write_model(plan: ModelPlan, draft: Path, out: Path, kept: dict[Part, PartPlan]) -> None:
    """Write how the parts join: a recipe's model section, and what loading the whole reads."""
    joined: dict[str, Any] = {}
    if "connector" in kept:
        config: Any = kept["connector"].config
        joined = {"kind": config.kind, "merge": config.merge, "hidden": config.hidden}
    if len(kept) == len(PARTS):
        write_json(draft / MODEL_FILE, {"connector": joined, **plan.settings})
    # Under the folder's name to be: the draft is renamed when all is written.
    places = {part: str((out / part).absolute()) for part in kept}
    section: dict[str, Any] = {part: place for part, place in places.items() if part != "connector"}
    if joined:
        section["connector"] = {**joined, "source": places["connector"]}
    # Values in JSON's style are YAML as well.
    lines = [
        f"  {key}: {json.dumps(value, ensure_ascii=False)}\n"
        for key, value in (section | plan.settings).items()
    ]
    (draft / MODEL).write_text("model:\n" + "".join(lines), encoding="utf-8")

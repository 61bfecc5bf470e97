"""The model card: README.md with what the Hub reads in its head, and where the weights come
from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sailvit.interop.export.trained import Trained, dtype_name
from sailvit.models.loading.vision import has_auto_model
from sailvit.models.towers.families import same_order

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LICENCE = re.compile(r"^license:\s*(\S+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Card:
    """What differs between the cards of layouts."""

    task: str
    """The Hub's name of what the model does."""
    title: str
    """First line of the text."""
    example: str
    """Python code that loads the folder and uses it on an image."""
    tags: tuple[str, ...] = ()
    """More words to find it by."""
    note: str = ""
    """What a user has to know besides."""


MODEL_EXAMPLE = """\
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

folder = "path/to/this/folder"
processor = AutoProcessor.from_pretrained(folder@REMOTE@)
model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto"@REMOTE@)
pieces = [
    {"type": "image", "image": Image.open("image.jpg")},
    {"type": "text", "text": "What is shown?"},
]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": pieces}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
)
answer = model.generate(**inputs, max_new_tokens=64)
print(processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""

TOWER_EXAMPLE = """\
import torch
from PIL import Image
@IMPORTS@

folder = "path/to/this/folder"
processor = AutoImageProcessor.from_pretrained(folder)
model = @CLASS@.from_pretrained(folder, dtype="auto").eval()
inputs = processor(Image.open("image.jpg"), return_tensors="pt")
with torch.no_grad():
    tokens = model(**inputs@OPTIONS@).last_hidden_state@ROWS@
patches = tokens[:, @PREFIX@ : @END@]  # @SIDE@ x @SIDE@ patches, row by row
print(tuple(patches.shape))
"""
_ROW_EXAMPLE = (
    TOWER_EXAMPLE[: TOWER_EXAMPLE.index("    tokens")]
    + """\
    tokens = model(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).last_hidden_state
print(tuple(tokens.shape))  # @SIDE@ x @SIDE@ patches of each image, one after the other
"""
)


def model_example(*, remote: bool) -> str:
    """The example of a whole model."""
    return MODEL_EXAMPLE.replace("@REMOTE@", ", trust_remote_code=True" if remote else "")


def tower_example(trained: Trained) -> str:
    """The example of a tower."""
    tower, kind = trained.bundle.mllm.tower, type(trained.tower)
    options = ", interpolate_pos_encoding=True" if trained.interpolates else ""
    if trained.ordered:
        # Without it the class shuffles the patches by chance.
        options += f", noise=torch.arange({trained.ordered})[None].float()"
    side = tower.preprocessing.size
    tile = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=trained.bundle.mllm.device)
    # Some towers are a part of a larger class alone, and `AutoModel` then has no entry for them.
    plain = has_auto_model(trained.tower.config)
    shared = "from transformers import AutoImageProcessor"
    own = f"{shared}\nfrom {kind.__module__} import {kind.__name__}"
    values = {
        "@IMPORTS@": f"{shared}, AutoModel" if plain else own,
        "@CLASS@": "AutoModel" if plain else kind.__name__,
        "@OPTIONS@": options,
        "@ROWS@": ".flatten(2).transpose(1, 2)" if trained.last_state(tile).ndim == 4 else "",
        "@PREFIX@": str(tower.prefix),
        "@END@": str(tower.prefix + tower.patches),
        "@SIDE@": str(tower.side),
    }
    text = TOWER_EXAMPLE if tower.family.raster is same_order else _ROW_EXAMPLE
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def write_card(trained: Trained, card: Card, folder: Path) -> None:
    """Write README.md."""
    text = "\n".join([*_head(trained, card), "", *_body(trained, card)])
    (folder / "README.md").write_text(text + "\n", encoding="utf-8")


def _head(trained: Trained, card: Card) -> list[str]:
    """The YAML that the Hub reads; a licence is named only where a base model says one."""
    sources = [str(given.get("source")) for given in _parents(trained).values()]
    bases = [source for source in sources if _HUB_ID.fullmatch(source)]
    licences = {found for source in sources if (found := _licence(source))}
    # Two licences at once are for people to weigh: naming one of them would promise too much.
    licence = licences.pop() if len(licences) == 1 else "other"
    lines = ["library_name: transformers", f"pipeline_tag: {card.task}", f"license: {licence}"]
    if licence == "other":
        # The Hub asks for a name where the licence is none of its own list.
        lines.append("license_name: see-base-models")
    if bases:
        lines += ["base_model:", *(f"- {base}" for base in sorted(set(bases)))]
        lines.append("base_model_relation: finetune")
    return ["---", *lines, "tags:", *(f"- {tag}" for tag in ("sailvit", *card.tags)), "---"]


def _body(trained: Trained, card: Card) -> list[str]:
    lineage = trained.lineage
    named = f"run `{lineage['run']}`, stage `{lineage['stage']}`" if "run" in lineage else "a run"
    return [
        f"# {card.title}",
        "",
        f"From {named}, refined with sailvit. Weights are {dtype_name(trained.dtype)}.",
        "",
        "```python",
        card.example.rstrip("\n"),
        "```",
        "",
        *([card.note, ""] if card.note else []),
        "## Where the weights come from",
        "",
        *_parts(trained),
        "",
        *_stages(lineage.get("stages", ())),
        "## Data",
        "",
        *(_listed(lineage.get("data", {})) or ["Not recorded."]),
        "",
        "Licences of base models and data hold for this model too: check them before you publish"
        " it.",
        "",
        "`lineage.json` has all of this for programs, `parity.json` the largest differences from"
        " the model in memory, found when this folder was written and loaded again.",
    ]


def _parts(trained: Trained) -> list[str]:
    rows = [(name, given.get("source")) for name, given in _parents(trained).items()]
    return _table(("part", "began as"), rows) if rows else ["Not recorded."]


def _stages(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            s["name"],
            ", ".join(f"{p} {lr:g}" for p, lr in s["train"].items()),
            s["steps"],
            s["samples"],
        )
        for s in stages
    ]
    head = ("stage", "trained, with share of the learning rate", "steps", "samples")
    return [*_table(head, rows), ""] if rows else []


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _listed(data: Mapping[str, Any]) -> list[str]:
    return [f"- `{name}`: `{json.dumps(said)[:100]}`" for name, said in data.items()]


def _parents(trained: Trained) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = trained.lineage.get("parents", {})
    return found


def _licence(source: str) -> str | None:
    """The licence that a base model's own card names, where it lies in a folder."""
    try:
        text = (Path(source) / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = _LICENCE.search(text)
    return found[1] if found else None

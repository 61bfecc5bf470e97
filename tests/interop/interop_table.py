"""Writes the table of docs/interop.md: `make interop`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from exported import loader, written
from safetensors.torch import load_file
from test_chat_parts import CASES
from test_chat_parts import worst as worst_of_chat
from test_hf import MODELS, NATIVE, NATIVES
from test_native_exports import FITS
from test_native_parts import CONFIGS
from test_native_parts import worst as worst_of_class
from test_original_aimv2 import weights, write
from test_sailvl import FITS as SAILVL

from sailvit.core.recipe import ConnectorConfig
from sailvit.core.run import read_json
from sailvit.interop.conversion import convert
from tiny_parts import Parts

BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
HEADS = ("layout", "direction", "tower", "connector", "language", "worst error")
NAMES = {
    "aimv2": "AIMv2, original layout",
    "internvit": "InternViT-300M",
    "internvit-6b": "InternViT-6B",
}


def rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """The cells of every row."""
    yield "SAILViT / original AIMv2", "in and out", "AIMv2", "-", "-", both_ways(folder / "aimv2")
    for number, (tower, language, version, tie) in enumerate(CASES):
        place = folder / str(number)
        error = worst_of_chat(place, tower, language, version, tie=tie)
        kind = f"merge_mlp, {version}" + (", columns first" if version == "v1" else "")
        head = f"{language}, tied" if tie else language
        layout = "SAIL-VL, SAIL-VL2" if tower == "aimv2" else "InternVL chat, SAIL-VL"
        yield layout, "in", NAMES[tower], kind, head, told(error)
    for name in CONFIGS:
        error = worst_of_class(folder / name, name)
        config = read_json(folder / name / "model/config.json")
        made = read_json(folder / name / "parts/connector/config.json")
        kind = f"{made['kind']}, merge {made['merge']}"
        vision, text = config["vision_config"], config["text_config"]
        layers = read_json(folder / name / "parts/model.json")["feature_layer"]
        tower = vision["model_type"] + (f", layers {layers}" if isinstance(layers, list) else "")
        layout = f"transformers {config['architectures'][0]}"
        yield layout, "in", tower, kind, text["model_type"], told(error)


def out_rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """The cells of every export, compared by the gate that each export goes through."""
    parts = Parts(folder / "of exports")
    cases = [("tower", {"tower": name}) for name in ("aimv2", "siglip", "siglip2", "clip", "vit")]
    cases += [("hf", settings) for settings in MODELS.values()]
    cases += [("hf", {**settings, "image": NATIVE}) for settings in NATIVES.values()]
    cases += [("sailvl", SAILVL), *FITS.values()]
    seen = set()
    for number, (layout, settings) in enumerate(cases):
        parity = written(loader(parts, **settings), layout, folder / f"export {number}")
        error = max(error for what, error in parity.worst.items() if what != "pixels")
        config = read_json(folder / f"export {number}" / "config.json")
        vision = config.get("vision_config", config)["model_type"]
        vision += ", native" * (settings.get("image") is NATIVE)
        connector = settings.get("connector", ConnectorConfig())
        kind = f"{connector.kind}, merge {connector.merge}" if layout != "tower" else "-"
        text = config.get("text_config", {"model_type": "-"})["model_type"]
        cells = (f"`{layout}`", "out", vision, kind, text, told(error))
        if cells not in seen:
            yield cells
        seen.add(cells)


def told(error: float) -> str:
    return f"{error:.1e}" if error else "0"


def both_ways(folder: Path) -> str:
    """0 if a checkpoint goes in and out bit by bit."""
    source = write(folder / "released")
    convert(str(source), folder / "plain", "transformers")
    convert(str(folder / "plain"), folder / "again", "sailvit")
    again = load_file(folder / "again/model.safetensors")
    return (
        "0" if all(torch.equal(again[name], tensor) for name, tensor in weights().items()) else "?"
    )


def table(lines: list[tuple[str, ...]]) -> str:
    made = [f"| {' | '.join(cells)} |" for cells in (HEADS, *lines)]
    made.insert(1, "|---" * len(HEADS) + "|")
    return "\n".join(made) + "\n"


def main() -> None:
    page = Path(sys.argv[1])
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        made = table([*rows(Path(folder)), *out_rows(Path(folder))])
    start, rest = text.split(BEGIN)
    page.write_text(start + BEGIN + made + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()

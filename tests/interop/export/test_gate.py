"""Nothing is published that gives other tokens, pixels, features or logits than in memory."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import loader
from safetensors.torch import load_file, save_file

from sailvit.core.errors import ModelError, RunError
from sailvit.core.recipe import ImageConfig
from sailvit.interop.export.export import export
from sailvit.interop.export.gate import reload_fresh
from sailvit.interop.export.reload_model import reload
from tiny_parts import Parts


def changed_weight(folder: Path, name: str, by: float) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    state[name] = state[name] * (1 + by) + by
    save_file(state, path, {"format": "pt"})


def changed_json(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def changed_template(folder: Path, old: str, new: str) -> None:
    path = folder / "chat_template.jinja"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


UP = "model.multi_modal_projector.up.bias"
TABLE = "model.vision_tower.embeddings.position_embedding.weight"
DAMAGE: dict[str, tuple[Any, str]] = {
    "tower": (lambda f: changed_weight(f, TABLE, 0.1), "one image.features differs by"),
    "connector": (lambda f: changed_weight(f, UP, 0.1), "one image.visual differs by"),
    "head": (lambda f: changed_weight(f, "lm_head.weight", 0.1), "text.logits differs by"),
    "not a number": (
        lambda f: changed_weight(f, "lm_head.weight", float("nan")),
        "text.logits differs by nan",
    ),
    "prompt": (
        lambda f: changed_template(f, "{{ message.role }}", "{{ message.role | upper }}"),
        "text.tokens differs at token",
    ),
    "line after an image": (
        lambda f: changed_template(f, "made.text + '\\n'", "made.text + '\\n\\n'"),
        "one image.tokens differs at token",
    ),
    "channel means": (
        lambda f: changed_json(f, "preprocessor_config.json", image_mean=[0.3, 0.4, 0.5]),
        "one image.pixels differs by",
    ),
    "tiles": (
        lambda f: changed_json(f, "preprocessor_config.json", max_tiles=1),
        "two images.tokens differs at token",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_the_first_difference_is_named_and_nothing_is_published(
    name: str, parts: Parts, tmp_path: Path
):
    damage, said = DAMAGE[name]

    def damaged(folder: Path, work: Path) -> None:
        damage(folder)
        reload(folder, work)

    load = loader(parts, image=ImageConfig(max_tiles=4))
    with pytest.raises(ModelError, match=said) as error:
        export(load, "hf", tmp_path / "out", reload=damaged)
    assert "nothing was published" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_loaded_gives_the_library_s_own_reason(parts: Parts, tmp_path: Path):
    def damaged(folder: Path, work: Path) -> None:
        (folder / "config.json").write_text("{}")
        reload_fresh(folder, work)

    with pytest.raises(ModelError, match=r"cannot load or run the export: .*config\.json"):
        export(loader(parts), "hf", tmp_path / "out", reload=damaged)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(parts: Parts, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="there already"):
        export(lambda: pytest.fail("not needed"), "hf", tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".gitkeep").write_text("")
    with pytest.raises(RunError, match="there already"):
        export(lambda: pytest.fail("not needed"), "hf", tmp_path / "notes.txt")


def test_the_model_is_given_up_before_the_copy_is_loaded(parts: Parts, tmp_path: Path):
    held: list[Any] = []
    load = loader(parts)

    def loaded() -> Any:
        made = load()
        held.append(weakref.ref(made.language))
        return made

    def checked(folder: Path, work: Path) -> None:
        gc.collect()
        assert held[0]() is None
        reload(folder, work)

    export(loaded, "hf", tmp_path / "out", reload=checked)


@torch.no_grad()
def test_rounded_weights_are_what_is_written(parts: Parts, tmp_path: Path):
    load = loader(parts, dtype=torch.bfloat16)
    export(load, "hf", tmp_path / "out", reload=reload)
    written = load_file(tmp_path / "out" / "model.safetensors")
    held = load().connector.state_dict()
    for name, tensor in held.items():
        assert torch.equal(written[f"model.multi_modal_projector.{name}"].float(), tensor)

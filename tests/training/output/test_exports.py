"""Exports: the state is safe before a part is written, failures are sentences, and only what is missing is made."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoModelForCausalLM

from sailvit.checkpoint.store import has_checkpoint
from sailvit.core.errors import ModelError, RunError
from sailvit.core.recipe import Recipe
from sailvit.core.run import read_json
from sailvit.models.loading import folders
from sailvit.training import trainer as module
from sailvit.training.output import exports
from tiny_parts import Parts
from tiny_runs import Record, lines, recipe, stage, stage_run, train, weights, write_data

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_data(tmp_path_factory.mktemp("data"))


def short(name: str, **train: float) -> dict[str, Any]:
    return stage(name, train=train, length={"samples": 8})


@pytest.fixture(scope="module")
def made(parts: Parts, sources: dict[str, Any]) -> Recipe:
    """The tower trains in the second stage alone, the language in none."""
    stages = [short("coarse", connector=1.0), short("fine", connector=1.0, tower=0.5)]
    return recipe(parts, sources, stages)


@pytest.fixture(scope="module")
def whole(made: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "device_peak", lambda *_: 1e12)
        train(made, folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(folder.glob("stages/*/*/*.safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


class Failing:
    """Counts what is exported, and fails at some of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, errors: dict[str, Exception]) -> None:
        self.tried: list[str] = []
        sound = folders.save_part

        def save(bundle: Any, part: str, folder: Path, **options: Any) -> None:
            name = f"{folder.parent.name}/{part}"
            self.tried.append(name)
            if name in errors:
                (folder.with_name(folder.name + ".part")).mkdir(parents=True, exist_ok=True)
                raise errors[name]
            sound(bundle, part, folder, **options)

        monkeypatch.setattr(exports, "save_part", save)


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        SafetensorError("Error while serializing: No space left on device (os error 28)"),
        ValueError("The repository contains custom code\nwhich must be executed"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ImportError("No module named 'timm'"),
        AttributeError("'Strange' object has no attribute 'config'"),
        KeyError("own_vision"),
        ModelError("other features than the one in memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_kind_of_failure_is_a_sentence_and_the_other_parts_are_written(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    only = stage_run(parts.build(), stage(), tmp_path)
    with monkeypatch.context() as patch:
        Failing(patch, {"00-only/tower": error})
        with pytest.raises(RunError) as stopped:
            exports.export_stage(only, "token")
    assert f"\n  tower: {str(error).splitlines()[0]}\n" in str(stopped.value)
    assert "--resume exports what is missing" in str(stopped.value)
    there = {path.name for path in (tmp_path / "stages/00-only").iterdir()}
    assert there == {"connector", "language", "tower.part"}


@pytest.mark.parametrize(
    ("name", "error"), [("00-coarse/connector", FULL), ("01-fine/tower", ImportError("no timm"))]
)
def test_a_part_that_cannot_be_exported_costs_no_step(
    made: Recipe,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: Exception,
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        Failing(patch, {name: error})
        with pytest.raises(RunError):
            train(made, run)
    folder, part = name.split("/")
    index = int(folder[:2])
    assert has_checkpoint(run / "state")
    assert len(read_json(run / "manifest.json")["stages"]) == index
    others = {"tower", "connector", "language"} - {part}
    assert {path.name for path in (run / "stages" / folder).iterdir()} - {f"{part}.part"} == others

    again, seen = Failing(monkeypatch, {}), Record()
    train(made, run, seen, resume=True)
    assert again.tried[0] == name
    assert not [tried for tried in again.tried[1:] if tried.startswith(folder)]
    assert not [record for record in seen.records if record.stage_index <= index]
    assert files(run) == files(whole)
    assert not (run / "state").exists()
    noted, expected = (read_json(place / "manifest.json")["stages"] for place in (run, whole))
    for entry in (*noted, *expected):
        entry.pop("seconds")
    assert noted == expected


class Killed(BaseException):
    """The process is gone, and no handler of it has run."""


@pytest.mark.parametrize("name", ["00-coarse/tower", "01-fine/connector"])
def test_a_run_killed_in_an_export_has_only_to_export_the_rest(
    made: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        Failing(patch, {name: Killed()})  # type: ignore[dict-item]
        with pytest.raises(Killed):
            train(made, run)
    kept = {path: path.stat().st_ino for path in run.glob("stages/*/*/*.safetensors")}
    seen = Record()
    train(made, run, seen, resume=True)
    assert not [record for record in seen.records if record.stage_index <= int(name[:2])]
    assert all(path.stat().st_ino == inode for path, inode in kept.items())
    assert files(run) == files(whole)
    assert not list(run.glob("stages/*/*.part"))


def test_a_manifest_that_cannot_be_written_is_a_sentence_too(
    made: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(exports, "note_stage", full)
        with pytest.raises(RunError, match=r"manifest\.json: .*No space left on device"):
            train(made, tmp_path)
    again = Failing(monkeypatch, {})
    train(made, tmp_path, resume=True)
    assert [name for name in again.tried if name.startswith("00")] == []
    assert files(tmp_path) == files(whole)


def test_an_export_that_was_cut_short_afterwards_is_made_again(
    made: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        Failing(patch, {"01-fine/tower": FULL})
        with pytest.raises(RunError):
            train(made, tmp_path)
    os.truncate(tmp_path / "stages/01-fine/connector/model.safetensors", 100)
    train(made, tmp_path, resume=True)
    assert files(tmp_path) == files(whole)


def test_a_part_that_no_stage_has_changed_is_linked(whole: Path, parts: Parts):
    first, second = (whole / f"stages/{name}" for name in ("00-coarse", "01-fine"))

    def inode(folder: Path) -> int:
        return (folder / "model.safetensors").stat().st_ino

    assert inode(first / "language") == inode(second / "language")
    assert inode(first / "tower") != inode(second / "tower")
    assert inode(first / "connector") != inode(second / "connector")
    notes = [entry.get("unchanged") for entry in read_json(whole / "manifest.json")["stages"]]
    assert notes == [None, {"language": "stages/00-coarse/language"}]
    loaded = AutoModelForCausalLM.from_pretrained(second / "language").state_dict()
    original = AutoModelForCausalLM.from_pretrained(parts.language("llama")).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in original.items())


def test_a_replaced_part_and_a_skipped_export_are_not_taken_for_the_same(
    parts: Parts, sources: dict[str, Any], tmp_path: Path
):
    stages = [
        short("a", connector=1.0),
        {**short("b", connector=1.0), "save": ["connector"]},
        {**short("c", connector=1.0), "start_from": {"tower": "recipe"}},
    ]
    train(recipe(parts, sources, stages), tmp_path)
    notes = [entry.get("unchanged") for entry in read_json(tmp_path / "manifest.json")["stages"]]
    assert notes == [None, None, {"language": "stages/00-a/language"}]


def test_without_links_files_are_copied(
    made: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unsupported(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    train(made, tmp_path)
    assert files(tmp_path) == files(whole)
    names = [tmp_path / f"stages/{n}/language/model.safetensors" for n in ("00-coarse", "01-fine")]
    assert names[0].stat().st_ino != names[1].stat().st_ino


def test_a_folder_that_was_changed_since_is_not_linked(
    made: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        Failing(patch, {"01-fine/language": FULL})
        with pytest.raises(RunError):
            train(made, tmp_path)
    touched = tmp_path / "stages/00-coarse/language/model.safetensors"
    content = bytearray(touched.read_bytes())
    content[-1] ^= 1
    touched.write_bytes(content)
    train(made, tmp_path, resume=True)
    name = "stages/01-fine/language/model.safetensors"
    assert files(tmp_path)[name] == files(whole)[name]


CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class OwnConfig(PretrainedConfig):
    model_type = "own_vision"

    def __init__(self, hidden_size=32, image_size=32, patch_size=8, num_hidden_layers=1, **given):
        super().__init__(**given)
        self.num_attention_heads = 1
        self.hidden_size, self.image_size, self.patch_size = hidden_size, image_size, patch_size
        self.num_hidden_layers = num_hidden_layers


class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    main_input_name = "pixel_values"
    _supports_sdpa = _supports_attention_backend = True

    def __init__(self, config):
        super().__init__(config)
        size = config.patch_size
        self.patch = nn.Conv2d(3, config.hidden_size, size, stride=size)
        self.block = nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def forward(self, pixel_values, output_hidden_states=None, **given):
        first = self.patch(pixel_values).flatten(2).transpose(1, 2)
        last = first + torch.tanh(self.block(first))
        return BaseModelOutputWithPooling(last_hidden_state=last, hidden_states=(first, last))
"""


def own_tower(folder: Path) -> Path:
    """A tower whose code lies beside its weights."""
    folder.mkdir(parents=True)
    (folder / "modeling_own.py").write_text(CODE)
    config = {
        "model_type": "own_vision", "hidden_size": 32, "image_size": 32, "patch_size": 8,
        "num_hidden_layers": 1, "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = {
        "size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    from transformers import AutoConfig

    settings = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    torch.manual_seed(5)
    made = AutoModel.from_config(settings, trust_remote_code=True)
    draft = folder.with_name("draft")
    made.save_pretrained(draft)
    shutil.copy(draft / "model.safetensors", folder)
    shutil.rmtree(draft)
    return folder


def test_a_tower_with_code_of_its_own_is_proved_with_that_code(
    parts: Parts, sources: dict[str, Any], tmp_path: Path
):
    model = {
        "tower": str(own_tower(tmp_path / "own")),
        "language": parts.language("llama"),
        "trust_remote_code": True,
    }
    made = recipe(parts, sources, [short("only", connector=1.0, tower=1.0)], model=model)
    final = weights(train(made, tmp_path / "run"))
    tower = tmp_path / "run/stages/00-only/tower"
    again = AutoModel.from_pretrained(tower, trust_remote_code=True).state_dict()
    assert all(torch.equal(final[f"tower.model.{name}"], t) for name, t in again.items())
    assert lines(tmp_path / "run/proofs.jsonl")[-1]["ok"]

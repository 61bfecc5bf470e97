"""Lineage as a file, and how a stage's settings become a loader config."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sailvit.core.run import RunFolder, read_json, write_json
from sailvit.data.lengths.costs import CostTable
from sailvit.models.loading.folders import save_part
from sailvit.training.output.manifest import (
    fingerprint_folder,
    machine,
    note_resume,
    note_stage,
    start_manifest,
    versions,
)
from sailvit.training.stages.stage_loader import make_loader_config, samples_of, target_of
from tiny_parts import Parts
from tiny_runs import recipe, stage, stage_run

SIZES = {"chat": 30, "text": 10, "spare": 99}


def test_a_fingerprint_is_of_weights_and_config(parts: Parts, tmp_path: Path):
    origin = Path(parts.tower("siglip"))
    copy = tmp_path / "copy"
    shutil.copytree(origin, copy)
    (copy / "README.md").write_text("said about it")
    assert fingerprint_folder(str(copy)) == fingerprint_folder(str(origin))
    tensors = load_file(copy / "model.safetensors")
    name = next(iter(tensors))
    tensors[name].view(torch.int32).view(-1)[0] ^= 1
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    assert fingerprint_folder(str(copy)) != fingerprint_folder(str(origin))
    assert len(fingerprint_folder(str(copy))) == 16


@pytest.mark.parametrize("source", ["apple/aimv2-large-patch14-448", "empty"])
def test_what_is_not_here_has_no_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert fingerprint_folder(source) is None


def test_every_folder_that_weights_come_from_is_recorded(parts: Parts, tmp_path: Path):
    bundle = parts.build()
    save_part(bundle, "connector", tmp_path / "connector")
    tower, connector = parts.tower("siglip"), str(tmp_path / "connector")
    starts = {"tower": tower, "connector": "recipe", "language": "previous"}
    model = parts.config(connector={"source": connector}).model_dump()
    made = recipe(
        parts, {"chat": {"format": "llava"}}, [stage("fine", start_from=starts)], model=model
    )
    start_manifest(RunFolder(tmp_path), made, bundle, {})
    parents = read_json(tmp_path / "manifest.json")["parents"]
    assert list(parents) == ["tower", "connector", "language", "fine/tower"]
    assert parents["fine/tower"] == {"source": tower, "fingerprint": fingerprint_folder(tower)}
    assert parents["connector"] == {
        "source": connector,
        "fingerprint": fingerprint_folder(connector),
    }
    assert all(parent["fingerprint"] for parent in parents.values())


class Words:
    """A source of which only the fingerprint and the length matter."""

    fingerprint = "abc"

    def __len__(self) -> int:
        return 30


def test_stages_are_noted_once_and_resumes_each_time(parts: Parts, tmp_path: Path):
    bundle = parts.build()
    made = stage_run(
        bundle, stage("fine", train={"tower": 0.5}, start_from={"language": "recipe"}), tmp_path
    )
    stages = [stage(), stage("long", length={"epochs": 2})]
    named = recipe(parts, {"chat": {"format": "llava"}}, stages)
    start_manifest(made.folder, named, bundle, {"chat": Words()})
    begun = read_json(made.folder.manifest)
    assert begun["data"] == {"chat": "abc"}
    assert begun["architecture"] == {"tower": "siglip_vision_model", "language": "llama"}
    assert (begun["stages"], begun["resumed"], begun["name"]) == ([], [], "tiny")
    assert begun["plan"][0] == {
        "name": "only",
        "train": {"connector": 1.0, "tower": 0.5, "language": 0.25},
        "length": {"samples": 20},
    }
    assert begun["plan"][1]["length"] == {"epochs": 2.0, "samples": 60}, "for the time left"
    assert begun["versions"] == versions()
    assert begun["machine"] == machine()
    made.step, made.samples, made.tokens, made.seconds = 4, 20, 900, 1.23456
    for _ in range(2):
        note_resume(made.folder, made)
        note_stage(made.folder, made, {"tower": made.folder.stage(0, "fine") / "tower"})
    values = read_json(made.folder.manifest)
    assert values["stages"] == [
        {
            "name": "fine",
            "index": 0,
            "steps": 4,
            "samples": 20,
            "tokens": 900,
            "seconds": 1.235,
            "train": {"tower": 0.5},
            "start": {"tower": "previous", "connector": "previous", "language": "recipe"},
            "parts": {"tower": "stages/00-fine/tower"},
            "files": [],
        }
    ]
    assert [(entry["stage"], entry["step"]) for entry in values["resumed"]] == [("fine", 4)] * 2
    write_json(made.folder.manifest, {**values, "stages": [{"index": 1}, {"index": 0}]})
    note_stage(made.folder, made, {})
    assert [entry["index"] for entry in read_json(made.folder.manifest)["stages"]] == [1, 0]


@pytest.mark.parametrize(
    ("length", "data", "samples", "target"),
    [
        ({"samples": 7}, ["chat"], 7, 7.0),
        ({"epochs": 1.5}, ["chat", "text"], 60, 60.0),
        ({"epochs": 0.5}, {"chat": 3, "text": 1}, 20, 20.0),
        ({"epochs": 0.001}, ["text"], 1, 1.0),
        ({"tokens": 1000}, ["text"], None, 1000.0),
        # Where every source ends, the stage and its schedule end with them.
        (
            {"samples": 500},
            {"chat": {"share": 1, "epochs": 1}, "text": {"share": 9, "epochs": 2}},
            50,
            50.0,
        ),
        (
            {"samples": 40},
            {"chat": {"share": 1, "epochs": 1}, "text": {"share": 9, "epochs": 2}},
            40,
            40.0,
        ),
        ({"samples": 500}, {"chat": {"share": 1, "epochs": 1}, "text": 1}, 500, 500.0),
        ({"tokens": 1000}, {"chat": {"share": 1, "epochs": 0.5}, "text": 1}, None, 1000.0),
        ({"tokens": 1000}, {"chat": {"share": 1, "epochs": 0.5}}, None, 210.0),
        ({"tokens": 200}, {"chat": {"share": 1, "epochs": 0.5}}, None, 200.0),
    ],
    ids=str,
)
def test_lengths_in_every_unit(
    parts: Parts, length: dict, data: object, samples: int | None, target: float
):
    sources = {name: {"format": "llava"} for name in SIZES}
    made = recipe(parts, sources, [stage(length=length, data=data)])
    loader_config = make_loader_config(made, 0, SIZES)
    assert samples_of(made.stages[0], SIZES) == loader_config.samples == samples
    costs = {
        name: CostTable(np.full(size, 14, np.int32), np.zeros(size, np.int32))
        for name, size in SIZES.items()
    }
    assert target_of(made.stages[0], loader_config, costs) == target


def test_a_feed_follows_the_stage(parts: Parts):
    sources = {name: {"format": "llava"} for name in SIZES}
    stages = [stage("one"), stage("two", data=["chat", "text"], global_batch=6, micro_batch=3)]
    loader_config = make_loader_config(recipe(parts, sources, stages, workers=2), 1, SIZES)
    assert (
        loader_config.name,
        loader_config.seed,
        loader_config.sequence,
        loader_config.workers,
    ) == ("two", 3, 100, 2)
    assert (
        loader_config.global_batch,
        loader_config.micro_batch,
        loader_config.rank,
        loader_config.world,
    ) == (6, 3, 0, 1)
    assert loader_config.shares == {"chat": 30.0, "text": 10.0}
    mixed = recipe(parts, sources, [stage(data={"chat": 1, "text": 4})])
    assert make_loader_config(mixed, 0, SIZES).shares == {"chat": 1.0, "text": 4.0}

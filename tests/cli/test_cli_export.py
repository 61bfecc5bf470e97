"""`sailvit export`: from a run to a folder that stock transformers loads, and what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

import sailvit
from sailvit.api.exports import export_model
from sailvit.cli.app import main
from sailvit.core.errors import RunError
from sailvit.core.recipe import PARTS
from sailvit.interop.export import export as exporting
from sailvit.interop.export.reload_model import reload
from sailvit.models.loading.folders import save_part
from sailvit.training import trainer as trainer_module
from tiny_parts import Parts
from tiny_runs import recipe, stage, without_pages, write_data


@pytest.fixture(scope="module")
def run(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
        without_pages(patch)
        stages = [
            stage("coarse", train={"connector": 1.0}, length={"samples": 4}),
            stage("fine", length={"samples": 4}),
        ]
        made = recipe(parts, write_data(tmp_path_factory.mktemp("data")), stages)
        folder = tmp_path_factory.mktemp("runs") / "mine"
        sailvit.train(made, run=folder, quiet=True)
    return folder


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sailvit", "export", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_run_goes_out_whole_and_proved_in_a_fresh_process(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert command(monkeypatch, str(run), "--to", "hf", "--out", str(out)) == 0
    told = capfd.readouterr().out
    assert "gives what the model in memory gives" in told
    assert max(map(len, told.replace(str(tmp_path), "").splitlines())) <= 80
    lineage = json.loads((out / "lineage.json").read_text())
    assert (lineage["run"], lineage["stage"]) == ("tiny", "fine")
    assert [made["name"] for made in lineage["stages"]] == ["coarse", "fine"]
    assert set(lineage["parents"]) == {"tower", "connector", "language"}
    assert lineage["data"].keys() == {"chat"}
    assert command(monkeypatch, str(run), "--to", "hf", "--out", str(out)) == 1
    assert "there already" in capfd.readouterr().err


def test_an_export_answers_as_its_run_does(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Reloaded in this process: the test above has a fresh one, which takes seconds to start.
    monkeypatch.setattr(exporting.export, "__kwdefaults__", {"reload": reload})
    out = tmp_path / "out"
    model = sailvit.load_run(run)
    export_model(run, "hf", out)
    image = Image.fromarray(np.arange(48 * 32 * 3, dtype=np.uint8).reshape(48, 32, 3))
    opened, again = sailvit.load_run(out), sailvit.load_run(out)
    for text in ("What is shown?", "And where?"):
        asked = model.generate(image, text, max_new_tokens=12)
        assert opened.generate(image, text, max_new_tokens=12) == asked
    # What answers are kept by does not change from one loading to the next.
    assert opened.identity == again.identity != model.identity
    with pytest.raises(RunError, match="is no run, so it has no stage 'fine'"):
        sailvit.load_run(out, "fine")


def test_an_earlier_stage_s_tower(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(exporting.export, "__kwdefaults__", {"reload": reload})
    for source in ((str(run), "--stage", "coarse"), (str(run / "stages" / "00-coarse"),)):
        out = tmp_path / str(len(source))
        assert command(monkeypatch, *source, "--to", "tower", "--out", str(out)) == 0
        lineage = json.loads((out / "lineage.json").read_text())
        assert [made["name"] for made in lineage["stages"]] == ["coarse"]
        assert type(AutoModel.from_pretrained(out)).__name__ == "SiglipVisionModel"


def test_what_is_no_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert command(monkeypatch, str(tmp_path), "--to", "hf", "--out", str(out)) == 1
    assert "has no recipe.yaml" in capfd.readouterr().err


def test_original_names_are_for_aimv2_towers(
    run: Path,
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    for function in (exporting.export, exporting.export_original):
        monkeypatch.setattr(function, "__kwdefaults__", {"reload": reload})
    out = tmp_path / "out"
    wanted = ("--to", "tower", "--names", "aimv2", "--out", str(out))
    assert command(monkeypatch, str(run), *wanted) == 1
    assert "expected an AIMv2 vision tower" in capfd.readouterr().err
    assert not out.exists()
    bundle = parts.build("aimv2")
    for part in PARTS:
        save_part(bundle, part, tmp_path / "saved" / part)
    assert command(monkeypatch, str(tmp_path / "saved"), *wanted) == 0
    names = set(load_file(out / "model.safetensors"))
    assert "trunk.blocks.0.attn.qkv.weight" in {n.split("encoder.")[-1] for n in names}
    assert (out / "parity.json").is_file()
    assert command(monkeypatch, str(run), "--to", "hf", "--names", "aimv2", "--out", str(out)) == 1
    assert "original names are a tower's" in capfd.readouterr().err

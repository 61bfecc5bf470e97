"""`sailvit probe` as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from dual_folders import save_refined, write_dual
from labelled_files import SIDE, coloured, encoded, write_folders
from typer.testing import CliRunner

from sailvit.api.probing import PROBE_FILE, probe
from sailvit.cli.app import app
from sailvit.core.errors import DataError, ModelError, RunError, SailvitError
from sailvit.core.run import write_json
from sailvit.data.processing.label_maps import encoded_label_map
from sailvit.evaluation.probes.running import Probing
from tiny_parts import Parts, save_model
from two_processes import in_two


def run(*words: object) -> str:
    made = CliRunner().invoke(app, ["probe", *map(str, words)], env={"COLUMNS": "80"})
    if isinstance(made.exception, SailvitError):
        raise made.exception
    assert made.exit_code == 0, made.output
    return made.output


@pytest.fixture(scope="module")
def towers(parts: Parts) -> list[str]:
    return [f"base={parts.tower('siglip')}", f"refined={parts.tower('vit')}"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "colours"
    names = [f"c{n}" for n in range(7)]
    write_folders(folder / "train", names, 12)
    write_folders(folder / "val", names, 6, seed=100)
    write_folders(folder / "few", names[2:4], 6, seed=200)
    (folder / "val" / "c0" / "0.png").write_bytes(b"no picture")
    return folder


def test_towers_stand_side_by_side_at_every_layer(towers, data, tmp_path):
    told = run(
        *(*towers, "--data", data, "--out", tmp_path / "out", "--epochs", 2),
        *("--cache", tmp_path / "cache", "--neighbours", 5),
    )
    paths = ("probe.json", "report.html")
    assert all(len(line) <= 80 for line in told.splitlines() if not line.endswith(paths))
    assert "linear, colours/val" in (tmp_path / "out" / "report.html").read_text()
    assert "base: 1 of colours/val cannot be used" in told
    for word in ("attentive", "knn", "top-5", "comes to", "model.feature_layer"):
        assert word in told
    rows = json.loads((tmp_path / "out" / "probe.json").read_text())
    keys = {(row["tower"], row["probe"], row["layer"]) for row in rows}
    probes = ("mlp", "linear", "attentive", "knn")
    assert keys == {(t, p, n) for t in ("base", "refined") for p in probes for n in (1, 2)}
    assert {row["n"] for row in rows if row["set"] == "colours/val"} == {41}
    # Two classes have no five best.
    few = {row["metric"] for row in rows if row["set"] == "colours/few"}
    assert few == {"top-1"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    found = json.loads((tmp_path / "out" / "probe_comparison.json").read_text())
    assert found["towers"]["base"]["own layer"] == 2
    assert len(found["differences"]) == 8
    assert {each["metric"] for each in found["differences"]} == {"top-1"}


def test_one_probe_of_one_layer(towers, data, tmp_path):
    out = tmp_path / "out"
    words = (towers[0], "--data", data, "--probe", "knn", "--layers", "last", "--neighbours", 3)
    told = run(*words, "--out", out, "--cache", tmp_path / "cache")
    assert "against" not in told
    rows = json.loads((out / "probe.json").read_text())
    assert {(row["probe"], row["layer"]) for row in rows} == {("knn", 2)}


def test_two_processes_find_what_one_does(towers, data, tmp_path):
    def work(index, out="both"):
        named = dict(each.split("=") for each in towers)
        how = Probing(tmp_path / f"cache-{out}", probes=("linear", "knn"), epochs=1, neighbours=3)
        report = probe(named, [data], how, out=tmp_path / out, device="cpu")
        assert len(report.towers["base"].outcomes) == 12

    assert in_two(tmp_path, work) == ["done", "done"]
    work(0, "one")
    both, one = (json.loads((tmp_path / name / PROBE_FILE).read_text()) for name in ("both", "one"))
    assert sorted(both, key=str) == sorted(one, key=str)


def test_maps_and_pictures_have_probes_of_their_own(towers, data, tmp_path):
    maps = tmp_path / "maps"
    for index in range(12):
        values = np.zeros((SIDE, SIDE), np.uint8)
        values[:, 8 + index % 4 :] = 1
        pixels = np.repeat(values[..., None] * 200, 3, axis=-1)
        for kind, content in (("images", encoded(pixels)), ("labels", encoded_label_map(values))):
            (maps / kind).mkdir(parents=True, exist_ok=True)
            (maps / kind / f"{index}.png").write_bytes(content)
    (maps / "labels" / "3.png").write_bytes(encoded_label_map(np.zeros((4, 4), np.uint8)))
    out, pictures = tmp_path / "out", data / "val" / "c1"
    words = ("--data", maps, "--data", pictures, "--cache", tmp_path / "cache", "--out", out)
    told = run(*towers, *words, "--epochs", 2)
    assert "a fifth of the images is held out" in told
    assert ", label maps cannot be used" in told
    rows = json.loads((out / "probe.json").read_text())
    assert {(row["probe"], row["metric"], row["set"]) for row in rows} == {
        ("segmentation", "mIoU", "maps/held-out"),
        ("segmentation", "pixels", "maps/held-out"),
        ("correspondence", "PCK@0.1", "c1"),
        ("correspondence", "PCK@0.05", "c1"),
    }
    found = json.loads((out / "probe_comparison.json").read_text())
    assert {each["metric"] for each in found["differences"]} == {"mIoU", "PCK@0.1"}


def test_texts_of_the_base_and_of_a_run(data, parts, tmp_path):
    dual = write_dual("siglip", tmp_path / "dual")
    save_refined(dual, tmp_path / "refined", "siglip", by=0.3)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    for index in range(4):
        (pairs / f"{index}.png").write_bytes(encoded(coloured(index, 0)))
        (pairs / f"{index}.txt").write_text(f"class {index}")
    place = ("--cache", tmp_path / "cache", "--out", tmp_path / "out", "--text", dual)
    probes = ("--probe", "zero-shot", "--probe", "retrieval", "--probe", "connector-retrieval")
    given = ("--data", data, "--data", pairs, *place, *probes)
    told = run(f"base={dual}", f"refined={tmp_path / 'refined'}", *given)
    assert "zero-shot" in told
    rows = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert {(row["probe"], row["tower"], row["layer"]) for row in rows} == {
        (probe, tower, -1) for probe in ("zero-shot", "retrieval") for tower in ("base", "refined")
    }
    assert {row["n"] for row in rows if row["probe"] == "retrieval"} == {4}
    model = save_model(parts.build(), tmp_path / "model")
    place = ("--cache", tmp_path / "cache", "--out", tmp_path / "more")
    run(model, "--data", pairs, *place)
    rows = json.loads((tmp_path / "more" / "probe.json").read_text())
    assert {row["probe"] for row in rows} == {"connector-retrieval"}
    with pytest.raises(DataError, match="zero-shot needs the text tower"):
        run(model, "--data", data, "--probe", "zero-shot", *place)


def test_an_evaluation_takes_probes_into_its_page(towers, data, tmp_path):
    write_json(
        tmp_path / "results.json", {"models": {}, "comparison": [], "matcher": "", "judge": None}
    )
    run(towers[0], "--data", data, "--out", tmp_path, "--probe", "knn", "--layers", "last")
    assert "knn, colours/val" in (tmp_path / "report.html").read_text()


def test_mistakes_are_sentences(towers, data, tmp_path):
    place = ("--cache", tmp_path / "cache", "--out", tmp_path / "out")
    with pytest.raises(DataError, match="no probe psychic; there are mlp"):
        run(*towers, "--data", data, "--probe", "psychic", *place)
    with pytest.raises(DataError, match="holds no data for a probe"):
        run(*towers, "--data", tmp_path, *place)
    with pytest.raises(DataError, match="nowhere does not exist; name images in folders"):
        run(*towers, "--data", tmp_path / "nowhere", *place)
    with pytest.raises(DataError, match="--layers names 3, but the tower has 2 blocks"):
        run(*towers, "--data", data, "--layers", "3", *place)
    with pytest.raises(DataError, match="no probe that was asked for can use these data"):
        run(*towers, "--data", data, "--probe", "segmentation", *place)
    with pytest.raises(DataError, match="150 nearest of 24 training images"):
        run(*towers, "--data", data, "--probe", "knn", "--neighbours", 150, *place)
    with pytest.raises(DataError, match="does not exist"):
        run(*towers, "--data", tmp_path / "nowhere", *place)
    with pytest.raises(DataError, match="one name"):
        run(towers[0], towers[0], "--data", data, *place)
    wide = tmp_path / "wide"
    shutil.copytree(towers[0].partition("=")[2], wide)
    said = json.loads((wide / "preprocessor_config.json").read_text())
    said["size"] = {"height": 32, "width": 64}
    (wide / "preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match="tiles are square"):
        run(wide, "--data", data, *place)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "novel.txt").write_text("x")
    with pytest.raises(RunError, match=r"novel\.txt"):
        run(*towers, "--data", data, "--out", tmp_path / "full")

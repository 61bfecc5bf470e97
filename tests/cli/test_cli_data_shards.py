"""`sailvit data prepare`, `index` and `check`: what is written, said, and with which exit code."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sailvit.cli.app import main
from sailvit.core.recipe import SourceConfig
from sailvit.data.lengths.measuring import measure
from sailvit.data.processing.processor import Processor
from sailvit.data.shards.manifest import load_manifest
from sailvit.data.sources import open_source
from sailvit.recipes.loader import dump_recipe
from tiny_parts import Parts
from tiny_runs import recipe, stage, write_data

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Runs `sailvit data` with arguments in a folder of data; returns exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_data(tmp_path / "data")

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sailvit", "data", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return int(str(code)), "".join(capsys.readouterr())

    return run


@pytest.fixture
def tiny(parts: Parts, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_recipe(recipe(parts, write_data(tmp_path / "data"), [stage()])))
    return path


def opened(folder: Path):
    return open_source("x", SourceConfig(format="indexed", path=str(folder)), Path())


def test_prepared_data_has_what_the_model_counts(cli, tiny, parts, tmp_path):
    code, said = cli(
        "prepare", "data/chat.json", "--images", "data/images", "--out", "out", "--recipe", tiny
    )
    assert code == 0, said
    assert "9 records (9 chat) in 1 shard," in said
    assert f"In a recipe: out: {{format: indexed, path: {tmp_path / 'out'}}}" in said
    bundle = parts.build()
    costs = measure("x", opened(tmp_path / "out"), Processor(bundle.tokenizer, bundle.layout, 100))
    entries = np.load(tmp_path / "out/index/shard-000000.tar.npy")
    assert np.array_equal(costs.tokens, entries["tokens"])
    assert costs.tokens.min() > 0


def test_several_sources_become_one_set(cli, tmp_path):
    code, said = cli(
        "prepare",
        "data/captions.jsonl",
        "data/text.jsonl",
        "--images",
        "data/images",
        "--out",
        "out",
    )
    assert code == 0, said
    assert "16 records" in said
    assert "Tokens are not counted" in said
    assert [opened(tmp_path / "out")[n].id for n in (0, 6)] == ["captions/0", "text/0"]


def test_bad_records_above_a_share_are_an_exit_code(cli, tmp_path):
    rows = [{"image": f"{n}.png", "text": "red"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, said = cli(
        "prepare", "rows.jsonl", "--images", "data/images", "--out", "out", "--max-bad", 0.5
    )
    assert code == 1
    assert "34 left out: out/bad.jsonl says why" in said
    assert "more than 50.00 % of the records are bad" in said
    assert load_manifest(tmp_path / "out").samples == 6
    assert (
        cli("prepare", "rows.jsonl", "--images", "data/images", "--out", "out", "--max-bad", 0.9)[0]
        == 0
    )


def test_an_index_follows_its_shards(cli, tiny, tmp_path):
    cli(
        "prepare",
        "data/captions.jsonl",
        "--images",
        "data/images",
        "--out",
        "out",
        "--shard-samples",
        2,
    )
    # What another program's folder of tars lacks.
    for name in ("sailvit.json", "bad.jsonl"):
        (tmp_path / "out" / name).unlink()
    shutil.rmtree(tmp_path / "out/index")
    code, said = cli("index", "out", "--recipe", tiny)
    assert code == 0, said
    assert "6 records (6 caption) in 3 shards" in said
    assert load_manifest(tmp_path / "out").measured is not None
    assert cli("index", "out", "--out", "elsewhere")[0] == 0
    assert len(opened(tmp_path / "elsewhere")) == 6


def test_check_says_what_is_wrong_and_where(cli, tiny, tmp_path):
    chat = ("data/chat.json", "--images", "data/images")
    code, said = cli("check", *chat, "--recipe", tiny, "--json", "report.json")
    assert code == 0, said
    assert "9 records read, 9 images decoded" in said
    assert "nothing is wrong" in said
    (tmp_path / "data/images/2.png").unlink()
    code, said = cli("check", *chat, "--json", "report.json", "--examples", 1)
    assert code == 1
    assert "missing file: 2, the first 1" in said
    assert "chat, position 2, data/chat.json, record 2" in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["bad"] == {"missing file": 2}


def test_errors_are_sentences(cli, tmp_path):
    code, said = cli("index", "data/images")
    assert code == 1
    assert "sailvit data prepare" in said
    code, said = cli("prepare", "nowhere", "--out", "out")
    assert code == 1
    assert "nowhere does not exist" in said


def test_a_set_without_records_is_an_exit_code(cli, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "gone.png", "text": "red"}) + "\n")
    code, said = cli("prepare", "rows.jsonl", "--images", "data/images", "--out", "out")
    assert code == 1
    assert "no record is left" in said
    assert "In a recipe" not in said
    code, said = cli("check", "out")
    assert code == 1
    assert "no records" in said
    assert "nothing is wrong" not in said

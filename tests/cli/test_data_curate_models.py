"""`sailvit data curate` with what other tools made: a dual encoder, a judge's scores, shards, a recipe."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_tokenizers import byte_tokenizer
from transformers import AutoModel, SiglipConfig, SiglipImageProcessor
from typer.testing import CliRunner

from sailvit.cli.data.app import data
from sailvit.core.recipe import SourceConfig
from sailvit.data.sources import open_source
from sailvit.models.loading.dual_encoder import DualEncoder

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TEXTS = [f"caption number {number} of a small shard" for number in range(9)]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(
        data, list(map(str, arguments)), env={"COLUMNS": "160", "NO_COLOR": "1"}
    )
    if result.exception is not None:
        raise result.exception
    return result.output


def picture(seed: int) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((48, 40), Image.Resampling.BICUBIC))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of three captioned pictures, stored without loss."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(3 * shard, 3 * shard + 3):
                file = io.BytesIO()
                Image.fromarray(picture(number)).save(file, format="PNG")
                for name, content in (
                    (f"k{number}.png", file.getvalue()),
                    (f"k{number}.txt", TEXTS[number].encode()),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("encoder")
    tokenizer = byte_tokenizer()
    torch.manual_seed(1)
    text = {
        **SIZES,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 48,
        "projection_size": 32,
    }
    config = SiglipConfig(
        text_config=text, vision_config={**SIZES, "image_size": 32, "patch_size": 8}
    )
    AutoModel.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def settings_file(folder: Path, *filters: dict) -> Path:
    path = folder / "filters.yaml"
    path.write_text(json.dumps({"filters": list(filters)}))
    return path


def chosen(folder: Path) -> list[str]:
    source = open_source("chosen", SourceConfig(format="selected", path=str(folder)), Path())
    return [source[place].turns[-1].text for place in range(len(source))]


def test_similarity_by_a_dual_encoder_keeps_what_scores_well(
    shards: Path, encoder: Path, tmp_path: Path
):
    scores = DualEncoder(str(encoder))([picture(number) for number in range(9)], TEXTS)
    middle = sorted(scores)[4]
    least = (middle + sorted(scores)[3]) / 2
    filters = settings_file(
        tmp_path, {"similarity": {"model": str(encoder), "at_least": least, "batch": 4}}
    )
    run("curate", shards, "--filters", filters, "--out", tmp_path / "out")
    expected = [text for text, score in zip(TEXTS, scores, strict=True) if score >= least]
    assert len(expected) == 5
    assert chosen(tmp_path / "out") == expected


def test_scores_lie_beside_the_filters(shards: Path, tmp_path: Path):
    lines = [
        {"source": "shards", "position": number, "score": number % 5 + 1} for number in range(8)
    ]
    (tmp_path / "scores.jsonl").write_text("\n".join(map(json.dumps, lines)))
    filters = settings_file(tmp_path, {"scores": {"file": "scores.jsonl", "at_least": 3}})
    text = run("curate", shards, "--filters", filters, "--out", tmp_path / "out")
    assert "score below 3: 4" in text
    assert "no score: 1" in text
    assert chosen(tmp_path / "out") == [TEXTS[number] for number in (2, 3, 4, 7)]


def test_a_selection_of_a_selection(shards: Path, tmp_path: Path):
    lines = [{"position": number, "score": float(number)} for number in range(9)]
    (tmp_path / "scores.jsonl").write_text("\n".join(map(json.dumps, lines)))
    filters = settings_file(tmp_path, {"scores": {"file": "scores.jsonl", "at_least": 4}})
    run("curate", shards, "--filters", filters, "--out", tmp_path / "one")
    again = settings_file(tmp_path, {"scores": {"file": "scores.jsonl", "at_most": 1}})
    run(
        "curate",
        tmp_path / "one",
        "--filters",
        again,
        "--out",
        tmp_path / "two",
        "--format",
        "selected",
    )
    # Positions in scores are those of the source that is curated: 0 and 1 of the first selection.
    assert chosen(tmp_path / "two") == TEXTS[4:6]


def test_the_selection_knows_where_the_data_are_and_says_what_it_dropped(
    shards: Path, tmp_path: Path
):
    filters = settings_file(
        tmp_path, {"length": {"at_least": 5}}, {"resolution": {"side_at_most": 10}}
    )
    given = ["curate", shards, "--filters", filters, "--out", tmp_path / "out"]
    text = (
        CliRunner()
        .invoke(data, list(map(str, given)), env={"COLUMNS": "160", "NO_COLOR": "1"})
        .output
    )
    assert "0 of 9 records kept" in text
    assert "longer side above 10: 9" in text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [account["filter"] for account in report["filters"]] == [
        "unreadable",
        "length",
        "resolution",
    ]
    assert len(report["filters"][2]["examples"]) == 5
    written = json.loads((tmp_path / "out" / "source.json").read_text())
    assert written["source"]["path"] == str(shards)
    assert written["records"] == 9


def test_several_sources_are_counted_together(shards: Path, tmp_path: Path):
    rows = tmp_path / "talk.jsonl"
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": TEXTS[0]}]
    rows.write_text("\n".join(json.dumps({"messages": turns}) for _ in range(3)))
    text = run("stats", shards, rows, "--words", "2")
    assert "shards, talk: 12 records, 9 images" in text
    assert "phrases of 2 words" in text
    assert "chat 25.0 %" in text
    assert "2 texts" in text

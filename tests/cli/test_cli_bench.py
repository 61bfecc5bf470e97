"""`sailvit bench train`: a table, notes, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from sailvit.cli.app import app
from sailvit.cli.bench import notes, speed_table
from sailvit.preflight.bench import Speed, StageSpeed

STAGE = StageSpeed(
    name="coarse",
    steps=4,
    packs=2,
    seconds=2.0,
    samples_per_s=12.0,
    tokens_per_s=3000.0,
    answer_tokens_per_s=1234.0,
    tiles_per_s=20.0,
    flops_per_s=4e11,
    mfu=0.4,
    mfu_datasheet=0.25,
    waiting=0.01,
    padding=0.0,
    peak_bytes=3 << 30,
)
SPEED = Speed("tiny", "H200", 8, "bf16", 1e12, 1.6e12, ("captions",), (STAGE,))


def test_the_table_names_both_peaks_where_both_are_known():
    table = speed_table(SPEED)
    rows = [list(column.cells) for column in table.columns]
    assert [cells[0] for cells in rows] == [
        "coarse",
        "12",
        "1,234",
        "40.0 %",
        "25.0 %",
        "3.0 GiB",
        "1.0 %",
    ]
    assert table.title == "tiny on 8 x H200"


def test_notes_say_what_the_figures_rest_on():
    text = " ".join(notes(SPEED))
    assert "1 TFLOP/s in bf16" in text
    assert "datasheet 1.6" in text
    assert "coarse 4 steps of 2 packs" in text
    assert "invented: captions" in text


def test_the_demo_is_measured(tmp_path: Path):
    file = tmp_path / "speed.json"
    sets = ["--set", "workers=0"]
    asked = ["bench", "train", "demo", "--steps", "1", "--warmup", "1", "--json", str(file), *sets]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "knowledge" in result.output
    written = json.loads(file.read_text())
    assert [stage["name"] for stage in written["stages"]] == ["coarse", "fine", "knowledge"]
    assert all(stage["mfu"] > 0 for stage in written["stages"])

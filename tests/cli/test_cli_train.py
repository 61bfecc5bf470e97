"""The command line: what it writes, what it says, and with which exit code it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from sailvit.api.demo import QUICK, DemoSize
from sailvit.cli import progress
from sailvit.cli.app import main
from sailvit.cli.demo import scores_table
from sailvit.cli.progress import ProgressCallback, proof_table
from sailvit.core.run import read_json
from sailvit.recipes.loader import dump_recipe, load_recipe
from sailvit.report.page import write_report
from sailvit.training import trainer as trainer_module
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import lines, recipe, stage, without_pages, write_data

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Runs `sailvit` with arguments in an empty folder; returns exit code, output and errors."""
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
    without_pages(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sailvit", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return int(code), *capsys.readouterr()

    return run


@pytest.fixture
def tiny(parts: Parts, tmp_path: Path) -> Path:
    """A recipe file of two short stages."""
    sources = write_data(tmp_path / "data")
    stages = [
        stage("coarse", train={"connector": 1.0}, length={"samples": 8}),
        stage("world", length={"samples": 8}),
    ]
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_recipe(recipe(parts, sources, stages)))
    return path


def test_a_run_folder_may_have_square_brackets(cli: Cli, tiny: Path, tmp_path: Path):
    """rich would take them for tags, and fail at one that ends none."""
    code, shown, said = cli("train", tiny, "--run", tmp_path / "runs[/b]")
    assert (code, said) == (0, "")
    assert "runs[/b]/stages/01-world" in shown.replace("\n", "")


def test_help_waits_for_no_heavy_library():
    code = (
        "import sys, sailvit.cli.app as app\n"
        "try: app.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'PIL', 'sklearn', 'scipy'}\n"
        "print('LOADED', *sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert shown.rstrip().endswith("LOADED")
    assert "Refine any pretrained ViT in stages" in shown
    for command in ("demo", "train", "plan", "report", "world"):
        assert f" {command} " in shown


@pytest.mark.parametrize("command", [["train"], ["world", "pretrain"], ["demo"], ["report"]])
def test_every_command_explains_itself(cli: Cli, command: list[str]):
    code, shown, _ = cli(*command, "--help")
    assert code == 0
    assert "Usage: sailvit" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "dmo"], r"dmo does not exist, and no shipped recipe has that name"),
        (["train", "demo", "--set", "stages.0.optim.lrr=1"], "lrr"),
        (
            ["train", "demo", "--resume"],
            "runs/demo-refine holds no run to resume; start it without --resume",
        ),
        (
            ["train", "demo", "--set", "model.tower=sailvit:nothing"],
            "no shipped checkpoint 'sailvit:nothing'",
        ),
    ],
)
def test_a_mistake_ends_with_a_sentence(cli: Cli, arguments: list[str], message: str):
    code, shown, said = cli(*arguments)
    assert code == 1
    assert said.startswith("\nerror: ")
    assert message.replace("demo-refine", load_recipe("demo").name) in said
    assert "Traceback" not in shown + said


def test_a_wrong_option_is_a_usage_error(cli: Cli):
    assert cli("train", "demo", "--resumee")[0] == 2


def test_train_writes_the_run_and_its_report(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sailvit.api.running.write_report", write_report)
    code, shown, said = cli(
        "train", tiny, "--set", "stages.world.optim.lr=0.0005", "--set", "name=named"
    )
    assert (code, said) == (0, "")
    run = tmp_path / "runs/named"
    resolved = load_recipe(run / "recipe.yaml")
    assert resolved.stages[1].optim.lr == 0.0005
    assert resolved == load_recipe(tiny, ["stages.world.optim.lr=0.0005", "name=named"])
    assert "<html" in (run / "report.html").read_text()
    for expected in (
        "writes to runs/named, trains on the CPU",
        "loads tower /",
        "parameters: tower ",
        "stage 1/2 coarse trains connector x1",
        "peak learning rate 0.0005",
        "holds",
        "report.html",
    ):
        assert expected in shown
    assert shown.count("proof of stage") == len(lines(run / "proofs.jsonl"))


def test_the_resolved_recipe_runs_to_the_same_result(cli: Cli, tiny: Path, tmp_path: Path):
    cli("train", tiny, "--run", "one")
    assert cli("train", tmp_path / "one/recipe.yaml", "--run", "two")[0] == 0
    weights = [
        tmp_path / run / "stages/01-world/language/model.safetensors" for run in ("one", "two")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_is_replaced_only_when_asked(cli: Cli, tiny: Path, tmp_path: Path):
    cli("train", tiny, "--run", "run")
    created = (tmp_path / "run/metrics.jsonl").read_text()
    code, _, said = cli("train", tiny, "--run", "run")
    assert code == 1
    assert "run already holds a finished run; replace it with --overwrite" in said
    assert (tmp_path / "run/metrics.jsonl").read_text() == created
    assert cli("train", tiny, "--run", "run", "--overwrite", "--set", "seed=8")[0] == 0
    assert read_json(tmp_path / "run/manifest.json")["seed"] == 8


def test_a_stop_says_how_to_go_on(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cli("train", tiny, "--run", "whole")
    sound = ProgressCallback.step_ended

    def stopped(callback: ProgressCallback, run: StageRun, record: StepRecord) -> None:
        sound(callback, run, record)
        if record.stage == "world" and record.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(progress.ProgressCallback, "step_ended", stopped)
    code, _, said = cli("train", tiny, "--run", "run")
    assert code == 130
    assert "Continue with: sailvit train run/recipe.yaml --resume" in said
    monkeypatch.setattr(progress.ProgressCallback, "step_ended", sound)
    code, _, said = cli(
        "train", tiny, "--run", "run", "--resume", "--set", "stages.world.optim.lr=0.5"
    )
    assert code == 1
    assert "stages.1.optim.lr: 0.001 is now 0.5" in said
    assert cli("train", "run/recipe.yaml", "--resume")[0] == 0
    weights = [
        tmp_path / run / "stages/01-world/tower/model.safetensors" for run in ("run", "whole")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_on_a_terminal_there_is_a_bar_instead_of_lines(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown = Console(force_terminal=True, width=160, record=True, file=(screen := io.StringIO()))
    monkeypatch.setattr("rich.console.Console", lambda **_: shown)
    assert cli("train", tiny, "--run", "run")[0] == 0
    text = shown.export_text()
    assert "ETA" in screen.getvalue()
    assert "run 0:" in screen.getvalue()
    assert "s left" not in text
    assert text.count("steps, 8 samples") == 2


def test_a_proof_that_fails_is_seen():
    row = {
        "planned": 1_500_000,
        "in_optimizer": 2_000,
        "moved": 5,
        "frozen": 0,
        "frozen_identical": 0,
        "lr": 1e-3,
    }
    rows = [{"part": "tower", **row, "verdict": "3 tensors should train"}]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(proof_table({"stage": "fine", "step": 10, "ok": False, "rows": rows}))
    text = console.export_text()
    for expected in (
        "proof of stage fine after step 10: FAILS",
        "1.5 M",
        "2,000",
        "0.001",
        "3 tensors should train",
    ):
        assert expected in text


def test_the_quick_demo_is_the_same_road_only_shorter():
    for name, counts in QUICK.items():
        sizes = DemoSize(quick=False, per_task=1), DemoSize(quick=True, per_task=1)
        whole, quick = (load_recipe(name, ["seed=5", *size.overrides(name)]) for size in sizes)
        assert [stage.length.samples for stage in quick.stages] == list(counts)
        assert whole.seed == quick.seed == 5
        same = [stage.model_copy(update={"length": None}) for stage in whole.stages]
        assert same == [stage.model_copy(update={"length": None}) for stage in quick.stages]


def test_scores_are_shown_per_task():
    summary = {"base": 0.25, "refined": 0.5, "tasks": {"count": {"base": 0.2, "refined": 0.1}}}
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(scores_table(summary))
    text = console.export_text()
    assert "+25.0" in text
    assert "-10.0" in text


def test_the_worlds_base_parts_are_made_from_nothing(cli: Cli, tmp_path: Path):
    stages = load_recipe("world-base").stages
    short = [f"--set=stages.{index}.length={{samples: 64}}" for index in range(len(stages))]
    few = [f"--set=sources.{name}.options.size=600" for name in ("text", "gist")]
    code, _, said = cli("world", "pretrain", "base", *short, *few, "--set=workers=0")
    assert (code, said) == (0, "")
    for part in ("tower", "language"):
        assert (tmp_path / "base" / part / "model.safetensors").exists()
    trained, begun = (
        tmp_path / "base" / place / "model.safetensors" for place in ("tower", "random/tower")
    )
    assert trained.read_bytes() != begun.read_bytes()


def test_a_run_folder_that_cannot_be_made_is_a_sentence(cli: Cli, tiny: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    code, _, said = cli("train", tiny, "--run", "file/run")
    assert code == 1
    assert "file/run cannot be written (Not a directory)" in said


def test_keys_that_are_not_read_are_told_by_plan_and_train(cli: Cli, tiny: Path, tmp_path: Path):
    """Once per source, with the number of records that hold them."""
    rows = tmp_path / "data/chat.json"
    given = json.loads(rows.read_text())
    for row in given[:3]:
        row["score"] = 0.5
    rows.write_text(json.dumps(given))
    expected = "source chat: keys not read: `score` (3)"
    for asked in (("plan", tiny, "--tflops", 1), ("train", tiny)):
        code, shown, said = cli(*asked)
        assert (code, said) == (0, "")
        assert shown.count(expected) == 1, shown


def test_settings_that_do_less_than_they_say_are_told(cli: Cli, tiny: Path):
    data = "stages.world.data={chat: {share: 1, epochs: 1}}"
    train = "stages.world.train={tower: {lr: 0.5, last_blocks: 1, layer_decay: 0.8}, connector: 1}"
    more = ["--set", "stages.world.length.samples=50", "--set", "parallel.mode=shard"]
    code, shown, said = cli("train", tiny, "--set", data, "--set", train, *more)
    assert (code, said) == (0, "")
    assert "world trains tower x0.5 (last 1 blocks, x0.8 per layer down), connector x1" in shown
    assert "its sources end after 9 records" in shown
    assert "length.samples asks for 50" in shown
    assert "parallel.mode is shard, but one process has nothing to share" in shown

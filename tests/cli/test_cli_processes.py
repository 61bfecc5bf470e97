"""`sailvit train` in the processes that torchrun starts: one run, as with one process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sailvit.cli.app import main
from sailvit.core.run import read_json
from sailvit.recipes.loader import dump_recipe
from sailvit.training import trainer as trainer_module
from sailvit.training.callbacks.proof import ProofCallback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import lines, recipe, three_stages, without_pages, write_data


def as_one_of_two(index: int, port: int, folder: str, arguments: tuple[str, ...]) -> None:
    """Run `sailvit` as torchrun would start it; output and exit code go to files."""
    torch.set_num_threads(1)
    place = {
        "RANK": index,
        "LOCAL_RANK": index,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in place.items()})
    os.chdir(folder)
    sys.argv = ["sailvit", *arguments]
    code = 0
    with open(f"{index}.out", "w") as sys.stdout, open(f"{index}.err", "w") as sys.stderr:  # noqa: PTH123
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    Path(f"{index}.code").write_text(str(code))


def two(folder: Path, *arguments: str) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, outputs and errors of two processes that train together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        as_one_of_two, (port, str(folder), arguments), nprocs=2, start_method="fork"
    )
    codes, shown, said = (
        [(folder / f"{n}.{end}").read_text() for n in (0, 1)] for end in ("code", "out", "err")
    )
    return [int(code) for code in codes], shown, said


@contextmanager
def in_folder(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """A context in which commands run there, on a device of known speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
        without_pages(patch)
        patch.setenv("COLUMNS", "200")
        patch.chdir(folder)
        yield patch


@pytest.fixture(scope="module")
def tiny(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe file of three stages, two of them with the contrastive objective."""
    folder = tmp_path_factory.mktemp("tiny")
    path = folder / "tiny.yaml"
    path.write_text(dump_recipe(recipe(parts, write_data(folder / "data"), three_stages())))
    return path


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path) -> Iterator[None]:
    with in_folder(tmp_path):
        yield


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    with in_folder(folder) as patch:
        patch.setattr(sys, "argv", ["sailvit", "train", str(tiny), "--run", "one"])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return folder / "one"


@pytest.fixture(scope="module")
def together(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[int], list[str], list[str]]:
    """The run of two processes, with their exit codes, outputs and errors."""
    folder = tmp_path_factory.mktemp("together")
    with in_folder(folder):
        return folder / "two", *two(folder, "train", str(tiny), "--run", "two")


def parts_of(run: Path) -> dict[str, torch.Tensor]:
    files = sorted(run.glob("stages/02-world/*/model.safetensors"))
    assert len(files) == 3
    return {
        f"{file.parent.name}/{name}": tensor
        for file in files
        for name, tensor in load_file(file).items()
    }


def test_two_processes_write_the_run_of_one(
    alone: Path, together: tuple[Path, list[int], list[str], list[str]]
):
    run, codes, shown, said = together
    assert (codes, said) == ([0, 0], ["", ""])
    assert "proof of stage world" in shown[0]
    assert shown[1] == ""
    one, both = (lines(place / "metrics.jsonl") for place in (alone, run))
    same = ("stage", "step", "samples", "tokens", "answer_tokens", "images", "lr")
    assert [[line[key] for key in same] for line in both] == [
        [line[key] for key in same] for line in one
    ]
    for ours, expected in zip(both, one, strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert ours["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    assert len(lines(run / "proofs.jsonl")) == len(lines(alone / "proofs.jsonl"))
    manifests = [read_json(place / "manifest.json") for place in (alone, run)]
    assert [made["data"] for made in manifests] == [manifests[0]["data"]] * 2
    assert [stage["index"] for stage in manifests[1]["stages"]] == [0, 1, 2]
    assert len(list((run / "tensorboard").iterdir())) == 1
    torch.testing.assert_close(parts_of(run), parts_of(alone), rtol=0, atol=1e-5)


def test_processes_stop_together_and_go_on(
    tiny: Path,
    together: tuple[Path, list[int], list[str], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    sound = ProofCallback.step_ended

    def stopped(callback: ProofCallback, run: StageRun, record: StepRecord) -> None:
        sound(callback, run, record)
        if os.environ["RANK"] == "1" and (record.stage, record.step) == ("fine", 1):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ProofCallback, "step_ended", stopped)
    codes, _, said = two(tmp_path, "train", str(tiny), "--run", "run")
    assert codes == [75, 75]
    assert "stopped by another process after step 2 of stage fine" in said[0]
    assert "torchrun ... -m -- sailvit train run/recipe.yaml --resume" in said[0]
    assert said[1] == ""
    monkeypatch.setattr(ProofCallback, "step_ended", sound)
    assert two(tmp_path, "train", "run/recipe.yaml", "--resume")[0] == [0, 0]
    torch.testing.assert_close(parts_of(tmp_path / "run"), parts_of(together[0]), rtol=0, atol=0)
    assert len(read_json(tmp_path / "run/manifest.json")["resumed"]) == 1
    assert two(tmp_path, "train", str(tiny), "--run", "run")[0] == [1, 1]
    short = [word for n in range(3) for word in ("--set", f"stages.{n}.length.samples=4")]
    again = ("train", str(tiny), "--run", "run", "--overwrite", *short)
    assert two(tmp_path, *again)[0] == [0, 0]
    assert [each["samples"] for each in read_json(tmp_path / "run/manifest.json")["stages"]] == [
        4
    ] * 3


def assert_same(run: Path, other: Path) -> None:
    """Weights agree to 1e-5, but for keys' biases: their gradients are rounding alone, which Adam makes steps of."""
    for name, weight in parts_of(run).items():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(
                weight, parts_of(other)[name], rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n} {m}"
            )


def test_a_sharded_run_writes_the_parts_of_one_process(tiny: Path, alone: Path, tmp_path: Path):
    codes, _, said = two(
        tmp_path, "train", str(tiny), "--run", "two", "--set", "parallel.mode=shard"
    )
    assert (codes, said) == ([0, 0], ["", ""])
    assert_same(tmp_path / "two", alone)
    assert all(line["ok"] for line in lines(tmp_path / "two/proofs.jsonl"))


def test_a_sharded_run_goes_on_in_one_process(
    tiny: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Same samples in the same global batches, none lost, none twice; weights as of an undisturbed run."""
    sound = ProofCallback.step_ended

    def stopped(callback: ProofCallback, run: StageRun, record: StepRecord) -> None:
        sound(callback, run, record)
        if (record.stage, record.step) == ("fine", 2):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ProofCallback, "step_ended", stopped)
    sharded = ("--set", "parallel.mode=shard")
    assert two(tmp_path, "train", str(tiny), "--run", "run", *sharded)[0] == [75, 75]
    monkeypatch.setattr(ProofCallback, "step_ended", sound)
    monkeypatch.setattr(sys, "argv", ["sailvit", "train", "run/recipe.yaml", "--resume"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert_same(tmp_path / "run", alone)
    key = ("stage", "step", "samples", "tokens", "images")
    run, whole = (lines(place / "metrics.jsonl") for place in (tmp_path / "run", alone))
    assert [[line[name] for name in key] for line in run] == [
        [line[name] for name in key] for line in whole
    ]


def test_auto_resume_goes_on_starts_over_or_does_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def sailvit(*changes: str) -> int:
        monkeypatch.setattr(
            sys,
            "argv",
            ["sailvit", "train", str(tiny), "--run", "run", "--set", "resume=auto", *changes],
        )
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    sound = ProofCallback.step_ended

    def stopped(callback: ProofCallback, run: StageRun, record: StepRecord) -> None:
        sound(callback, run, record)
        if (record.stage, record.step) == ("fine", 1):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ProofCallback, "step_ended", stopped)
    assert sailvit() == 75
    monkeypatch.setattr(ProofCallback, "step_ended", sound)
    # A run that was killed before its first save has nothing to lose and begins anew.
    shutil.move(tmp_path / "run/state", tmp_path / "kept")
    first = read_json(tmp_path / "run/manifest.json")["created"]
    monkeypatch.setattr(ProofCallback, "step_ended", stopped)
    assert sailvit() == 75
    assert read_json(tmp_path / "run/manifest.json")["resumed"] == []
    assert read_json(tmp_path / "run/manifest.json")["created"] >= first
    monkeypatch.setattr(ProofCallback, "step_ended", sound)
    assert sailvit() == 0
    assert len(read_json(tmp_path / "run/manifest.json")["resumed"]) == 1
    created = (tmp_path / "run/report.html").stat().st_mtime_ns
    assert sailvit() == 0
    assert (tmp_path / "run/report.html").stat().st_mtime_ns == created

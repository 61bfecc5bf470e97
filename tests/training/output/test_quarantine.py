"""Bad records in training: left out, written down once, and the run goes on as it would have."""

from __future__ import annotations

import json
import math
import signal
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from sailvit.cli.progress import ProgressCallback
from sailvit.core.bad_records import BadRecord, QuarantinedRecord, left_out, read_quarantine
from sailvit.core.errors import DataError, InterruptedRunError
from sailvit.core.recipe import Stage
from sailvit.core.run import RunFolder
from sailvit.training import trainer
from sailvit.training.output import quarantine as module
from sailvit.training.output.quarantine import QuarantineLog
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import lines, recipe, stage, train, weights, write_data


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine's speed takes longer than these runs."""
    monkeypatch.setattr(trainer, "device_peak", lambda *_: 1e12)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Any]:
    """The tiny sources with an image that is half there and a row that is cut."""
    found = write_data(tmp_path / "data")
    image = tmp_path / "data/images/2.png"
    image.write_bytes(image.read_bytes()[:400])
    texts = (tmp_path / "data/text.jsonl").read_text().splitlines()
    (tmp_path / "data/text.jsonl").write_text(
        "\n".join([*texts[:3], texts[3][:30], *texts[4:]]) + "\n"
    )
    return found


STAGES = [
    stage("first", length={"samples": 16}),
    stage("second", data={"chat": 1, "text": 1}, length={"samples": 30}),
]


class Stop(Callback):
    """Asks for a stop after a step of the second stage."""

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        if (record.stage_index, record.step) == (1, 2):
            signal.raise_signal(signal.SIGTERM)


def test_a_run_leaves_bad_records_out_and_goes_on_exactly_after_a_stop(
    parts: Parts, sources: dict, tmp_path: Path
):
    made = recipe(parts, sources, STAGES)
    text = StringIO()
    callback = ProgressCallback(Console(file=text, width=200))
    whole = weights(train(made, tmp_path / "whole", callback))
    noted = lines(tmp_path / "whole/quarantine.jsonl")
    assert {(line["source"], line["kind"]) for line in noted} == {
        ("chat", "image"),
        ("text", "text"),
    }
    assert all(line["step"] >= 1 and line["rank"] == 0 and line["reason"] for line in noted)
    (cut,) = {
        (line["position"], line["shard"], line["offset"])
        for line in noted
        if line["source"] == "text"
    }
    assert cut == (3, str(tmp_path / "data/text.jsonl"), 4)
    samples = [line["samples"] for line in lines(tmp_path / "whole/metrics.jsonl")]
    assert 30 - samples[-1] == sum(line["stage"] == "second" for line in noted)
    assert (
        f"left out of text: {sum(line['source'] == 'text' for line in noted)} text (quarantine.jsonl)"
        in text.getvalue()
    )

    with pytest.raises(InterruptedRunError):
        train(made, tmp_path / "cut", Stop())
    late = {"stage": "second", "stage_index": 1, "step": 99, "source": "chat", "kind": "image"}
    with (tmp_path / "cut/quarantine.jsonl").open("a") as file:
        file.write(json.dumps(late) + "\n")
    again = weights(train(made, tmp_path / "cut", resume=True))
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    assert lines(tmp_path / "cut/quarantine.jsonl") == noted


def _rows(folder: Path) -> list[str]:
    return (folder / "data/text.jsonl").read_text().splitlines()


def test_too_many_bad_records_stop_the_run(parts: Parts, sources: dict, tmp_path: Path):
    strict = {"allow": 0, "share": 0.01}
    with pytest.raises(DataError, match=r"sources\.text: 1 of 10 records cannot be used"):
        train(recipe(parts, sources, STAGES, quarantine=strict), tmp_path / "judged")
    assert not (tmp_path / "judged").exists()
    made = recipe(parts, sources, STAGES[:1], quarantine=strict)
    with pytest.raises(
        DataError, match=r"records of source chat could not be read \(\d image\); at most 0, or 1"
    ):
        train(made, tmp_path / "run")
    assert lines(tmp_path / "run/quarantine.jsonl")


def test_steps_without_a_readable_record_do_no_harm(parts: Parts, tmp_path: Path):
    sources = write_data(tmp_path / "data")
    for number in (1, 3, 4):
        (tmp_path / f"data/images/{number}.png").write_bytes(b"<html>")
    alone = stage(
        data=["captions"], train={"language": 1.0}, length={"samples": 12}, global_batch=1
    )
    train(recipe(parts, sources, [alone], sequence=60), tmp_path / "run")
    steps = lines(tmp_path / "run/metrics.jsonl")
    empty = [step for step in steps if not step["answer_tokens"]]
    assert empty
    assert all(step["loss"]["next_token"] == 0 and step["grad_norm"] == 0 for step in empty)
    assert all(math.isfinite(step["loss"]["next_token"]) for step in steps)


def bad(step: int = 1, kind: str = "image") -> QuarantinedRecord:
    return QuarantinedRecord(
        step=step, source="pairs", position=4, id="é", kind=kind, reason="half of it is missing"
    )


def test_every_rank_writes_its_own_lines_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, settings = RunFolder(tmp_path), Stage.model_validate(stage("fine"))
    monkeypatch.setattr(module, "world", lambda: 2)
    for number in (0, 1, 3):
        monkeypatch.setattr(module, "rank", lambda number=number: number)
        log = QuarantineLog(folder)
        log.reporter(1, settings)(bad(number + 1))
        log.reporter(0, settings)(bad(kind="timeout"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "quarantine-1.jsonl",
        "quarantine-3.jsonl",
        "quarantine.jsonl",
    ]
    assert lines(tmp_path / "quarantine-3.jsonl")[0] == {
        "stage": "fine", "stage_index": 1, "rank": 3, "step": 4, "source": "pairs", "position": 4, "id": "é",
        "kind": "image", "reason": "half of it is missing", "shard": None, "offset": None, "count": 1,
    }  # fmt: skip
    found = read_quarantine(folder)
    assert [(each.stage_index, each.step, each.rank) for each in found] == [
        *((0, 1, rank) for rank in (1, 3, 0)),
        *((1, rank + 1, rank) for rank in (0, 1, 3)),
    ]
    assert left_out(found) == {"pairs": Counter(image=3, timeout=3)}


def test_files_of_ranks_that_are_no_more_belong_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("quarantine.jsonl", "quarantine-1.jsonl", "quarantine-3.jsonl"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(module, "world", lambda: 2)
    owned = {}
    for number in (0, 1):
        monkeypatch.setattr(module, "rank", lambda number=number: number)
        owned[number] = sorted(path.name for path in QuarantineLog(RunFolder(tmp_path)).files())
    assert owned == {0: ["quarantine-3.jsonl", "quarantine.jsonl"], 1: ["quarantine-1.jsonl"]}


def test_what_sources_found_damaged_when_they_opened_is_written_first(tmp_path: Path):
    class Faulty:
        faults = (
            BadRecord(
                shard="a.tar",
                offset=512,
                kind="cut shard",
                reason="it ends after 600 of 9000 bytes",
                count=2,
            ),
        )

    QuarantineLog(RunFolder(tmp_path)).note_faults(
        Stage.model_validate(stage("fine")), {"tars": Faulty()}
    )
    (line,) = lines(tmp_path / "quarantine.jsonl")
    assert (line["stage"], line["step"], line["source"], line["shard"]) == (
        "fine",
        0,
        "tars",
        "a.tar",
    )
    assert left_out(read_quarantine(RunFolder(tmp_path))) == {"tars": Counter({"cut shard": 2})}

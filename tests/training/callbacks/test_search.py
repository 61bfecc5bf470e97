"""The search in runs: what it writes, what it takes back, and that stopping anywhere changes nothing."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.core.batch import Batch, Step
from sailvit.core.errors import InterruptedRunError
from sailvit.core.recipe import CheckpointConfig, Recipe
from sailvit.core.run import RunFolder
from sailvit.data.processing.collate import collate
from sailvit.training import trainer as module
from sailvit.training.callbacks.proof import ProofCallback
from sailvit.training.callbacks.search import SearchCallback
from sailvit.training.callbacks.state import trained_names
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.loop import run_stage
from sailvit.training.stages.stage_run import StageRun, StepRecord
from sailvit.training.trainer import Trainer
from tiny_parts import Parts, mixed_records, samples
from tiny_runs import Record, lines, recipe, stage, stage_run, train, weights, write_data

TIMES = ("seconds", "wait", "samples_per_s", "answer_tokens_per_s", "mfu")
WINDOW, STEPS = 4, 40
SEARCH = {"window": WINDOW, "widest": 1, "until": 0.6, "errors": 0.01}
SCHEDULE = {"name": "adalrs", "warmup": 10 / 64, "search": SEARCH, "decay": {"share": 0.2}}


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)


@pytest.fixture(scope="module")
def searching(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A stage that begins far too high, so that raises are taken back, with a checkpoint after every step."""
    sources = write_data(tmp_path_factory.mktemp("data"))
    both = {"next_token": 1.0, "contrastive": 0.1}
    settings = stage(
        data=["captions", "chat"],
        objectives=both,
        optim={"lr": 0.01},
        length={"samples": 64},
        schedule=SCHEDULE,
        global_batch=1,
    )
    return recipe(parts, sources, [settings])


@pytest.fixture(scope="module")
def whole(
    searching: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "device_peak", lambda *_: 1e12)
        return folder, weights(train(searching, folder))


def measured(folder: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in line.items() if k not in TIMES}
        for line in lines(folder / "metrics.jsonl")
    ]


def test_a_run_writes_what_the_search_did(whole: tuple, searching: Recipe):
    events, steps = lines(whole[0] / "events.jsonl"), lines(whole[0] / "metrics.jsonl")
    kinds = [event["event"] for event in events]
    assert {"rate raised", "rate taken back", "rate lowered"} <= set(kinds)
    assert kinds[-1] == "rate found"
    assert [(e["stage"], e["stage_index"]) for e in events] == [("only", 0)] * len(events)
    peak = searching.stages[0].optim.lr
    assert all(event["lr"] == pytest.approx(peak * event["factor"]) for event in events)
    for event, after in itertools.pairwise(events):
        between = [
            s["lr"]["connector"] for s in steps if event["step"] < s["step"] <= after["step"]
        ]
        assert between == pytest.approx([event["lr"]] * len(between)), (
            "the factor is in force from the next step on"
        )
    assert steps[-1]["lr"]["connector"] < events[-1]["lr"], "the shape goes on to its decay"
    assert all(line["ok"] for line in lines(whole[0] / "proofs.jsonl"))


def test_the_search_sees_the_weighted_loss_after_warm_up(whole: tuple, searching: Recipe):
    steps = lines(whole[0] / "metrics.jsonl")
    warm = [s["step"] for s in steps if s["samples"] / 64 <= SCHEDULE["warmup"]]
    first = lines(whole[0] / "events.jsonl")[0]
    assert first["step"] == len(warm) + WINDOW
    window = [
        s["loss"]["next_token"] + 0.1 * s["loss"]["contrastive"]
        for s in steps[len(warm) :][:WINDOW]
    ]
    drop = sum((step - 1.5) * loss for step, loss in enumerate(window)) / 5
    assert first["window"]["slope"] == pytest.approx(drop)


def places(folder: Path) -> dict[str, int]:
    """Steps to stop after: in a trial that is taken back, at its end, in the middle of the window after it."""
    events = lines(folder / "events.jsonl")
    back = next(index for index, event in enumerate(events) if event["event"] == "rate taken back")
    return {
        "in": events[back - 1]["step"] + 2,
        "end": events[back]["step"],
        "after": events[back]["step"] + 2,
    }


class Kill(Callback):
    """Asks to stop after a step, as a scheduler does; the step is finished and saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        # The signal arrives after the callback that listens to it has run, so the next step is the last.
        if record.step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("place", ["in", "end", "after"])
def test_a_stop_in_the_search_changes_nothing(
    whole: tuple, searching: Recipe, tmp_path: Path, place: str
):
    step = places(whole[0])[place]
    with pytest.raises(InterruptedRunError, match=f"after step {step} "):
        train(searching, tmp_path, Kill(step))
    final = weights(train(searching, tmp_path, resume=True))
    assert not [name for name, tensor in whole[1].items() if not torch.equal(final[name], tensor)]
    assert measured(tmp_path) == measured(whole[0])
    assert lines(tmp_path / "events.jsonl") == lines(whole[0] / "events.jsonl")


class PowerLossError(Exception):
    """The machine went down, without a word."""


class PowerLoss(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        if record.step == self.step:
            raise PowerLossError


def test_events_after_the_last_save_are_forgotten(whole: tuple, searching: Recipe, tmp_path: Path):
    """Saved within the trial, lost after its rollback: the trial is finished, and taken back, a second time."""
    found = places(whole[0])
    made = searching.model_copy(update={"checkpoint": CheckpointConfig(every=found["in"])})
    with pytest.raises(PowerLossError):
        train(made, tmp_path, PowerLoss(found["after"]))
    assert len(lines(tmp_path / "events.jsonl")) > 1
    final = weights(train(made, tmp_path, resume=True))
    assert not [name for name, tensor in whole[1].items() if not torch.equal(final[name], tensor)]
    assert lines(tmp_path / "events.jsonl") == lines(whole[0] / "events.jsonl")


def test_announcements_are_proofs_and_events(searching: Recipe, tmp_path: Path):
    told: list[dict[str, Any]] = []
    Trainer(searching, RunFolder(tmp_path), announce=told.append).run()
    assert [line for line in told if "event" in line] == lines(tmp_path / "events.jsonl")
    assert [line for line in told if "rows" in line] == lines(tmp_path / "proofs.jsonl")


def ready(parts: Parts, batch: Batch, folder: Path, lr: float) -> StageRun:
    made = stage_run(
        parts.build(),
        stage(optim={"lr": lr}, schedule=SCHEDULE, length={"samples": 4 * STEPS}),
        folder,
    )
    made.loader = [Step((batch,), {"at": n}) for n in range(STEPS)]  # type: ignore[assignment]
    return made


class Watch(Record):
    """Keeps all that trains, and the moments, as they were at the end of every step, before the search judges it."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[int, dict[str, torch.Tensor]] = {}

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        self.states[record.step] = state(stage_run)


def state(made: StageRun) -> dict[str, torch.Tensor]:
    names = trained_names(made)
    moments = {
        f"{key}/{names[p]}": t.clone()
        for p, s in made.optimizer.state.items()
        for key, t in s.items()
    }
    held = [p for group in made.optimizer.param_groups for p in group["params"]]
    return {names[p]: p.detach().clone() for p in held} | moments


def test_a_rollback_is_exact_and_data_goes_on(parts: Parts, tmp_path: Path):
    batch = collate([samples(parts.build(), mixed_records())])
    made, watch, after = ready(parts, batch, tmp_path, lr=0.03), Watch(), Watch()
    search = SearchCallback()
    run_stage(made, [watch, ProofCallback(), search, after])
    events = lines(tmp_path / "events.jsonl")
    pairs = [(a, b) for a, b in itertools.pairwise(events) if b["event"] == "rate taken back"]
    assert pairs
    for raised, back in pairs:
        before, trial, now = (
            watch.states[raised["step"]],
            watch.states[back["step"]],
            after.states[back["step"]],
        )
        assert not [name for name, tensor in before.items() if not torch.equal(tensor, now[name])]
        assert any(not torch.equal(tensor, trial[name]) for name, tensor in before.items())
        assert back["factor"] < raised["factor"]
    assert (made.step, made.cursor) == (STEPS, {"at": STEPS - 1})
    assert search.snapshot is None


def test_a_skipped_step_ends_a_trial(parts: Parts, tmp_path: Path):
    """Its gradient was no number, though its loss may be one."""
    batch = collate([samples(parts.build(), mixed_records())])
    made, seen, told = ready(parts, batch, tmp_path, lr=1e-3), Record(), []
    made.loader = made.loader[: WINDOW + 8]  # type: ignore[index]
    search = SearchCallback(told.append)
    run_stage(made, [seen, search])
    assert [line["event"] for line in told] == ["rate raised"]
    assert search.snapshot is not None
    before = {p: kept.clone() for p, kept in search.snapshot.weights.items()}
    search.step_ended(made, dataclasses.replace(seen.records[-1], skipped=True))
    assert ([line["event"] for line in told[1:]], made.rate_factor) == (
        ["rate taken back", "rate lowered"],
        0.5,
    )
    assert all(torch.equal(p, kept) for p, kept in before.items())


def test_going_back_to_a_state_outside_trials_forgets_the_way_back(parts: Parts, tmp_path: Path):
    """As when a run goes back to its last checkpoint from the middle of a trial."""
    batch = collate([samples(parts.build(), mixed_records())])
    made = ready(parts, batch, tmp_path, lr=1e-3)
    made.loader, search = made.loader[: WINDOW + 8], SearchCallback()  # type: ignore[index]
    search.stage_started(made)
    first = search.state_dict()
    run_stage(made, [search])
    trial, tensors = search.state_dict(), search.state_tensors(made)
    search.rolled_back(made, first, {})
    assert search.search is not None
    assert (search.snapshot, search.search.trying, made.rate_factor) == (None, False, 1.0)
    search.rolled_back(made, trial, tensors)
    assert search.search.trying
    assert search.state_tensors(made).keys() == tensors.keys()


def two_ranks(index: int, folder: str, parts: Parts, batches: list[Batch]) -> None:
    """A search over two processes with different data."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/join", rank=index, world_size=2
    )
    told: list[dict[str, Any]] = []
    made = ready(parts, batches[index], Path(folder), lr=0.03)
    made.loader = made.loader[:20]  # type: ignore[index]
    run_stage(made, [SearchCallback(told.append)])
    torch.save((told, state(made)), f"{folder}/{index}.pt")
    torch.distributed.destroy_process_group()


def test_all_processes_decide_alike(parts: Parts, tmp_path: Path):
    records = mixed_records()
    batches = [collate([samples(parts.build(), half)]) for half in (records[:2], records[2:])]
    torch.multiprocessing.start_processes(
        two_ranks, (str(tmp_path), parts, batches), nprocs=2, join=True, start_method="fork"
    )
    (one, first), (other, second) = (torch.load(tmp_path / f"{index}.pt") for index in range(2))
    assert one == other == lines(tmp_path / "events.jsonl")
    assert "rate taken back" in [line["event"] for line in one]
    assert not [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]

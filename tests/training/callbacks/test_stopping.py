"""Stops that the program decides: what is good of the state is saved before, and a resumed run goes on exactly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.checkpoint.store import has_checkpoint
from sailvit.core.batch import Step
from sailvit.core.errors import DataError, ProofError, RunError
from sailvit.core.recipe import QuarantineConfig, Recipe, RecoveryConfig
from sailvit.core.run import RunFolder
from sailvit.distributed import processes
from sailvit.training import trainer as module
from sailvit.training.objectives.base import NextToken
from sailvit.training.stages import loop
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from sailvit.training.trainer import Trainer
from tiny_parts import Parts
from tiny_runs import lines, recipe, stage, train, weights, write_data

TIMES = ("seconds", "wait", "samples_per_s", "answer_tokens_per_s", "mfu")


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)


@pytest.fixture
def made(parts: Parts, tmp_path: Path) -> Recipe:
    only = stage(length={"samples": 30}, global_batch=1)
    return recipe(parts, write_data(tmp_path / "data"), [only])


@pytest.fixture
def whole(made: Recipe, tmp_path: Path) -> dict[str, torch.Tensor]:
    return weights(train(made, tmp_path / "whole"))


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "state").iterdir())


def measured(folder: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in line.items() if k not in TIMES}
        for line in lines(folder / "metrics.jsonl")
    ]


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert not [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]


class Fail(Callback):
    """Raises after a step."""

    def __init__(self, step: int, error: Exception) -> None:
        self.step, self.error = step, error

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        if record.step == self.step:
            raise self.error


def test_too_many_bad_records_lose_no_step(made: Recipe, tmp_path: Path):
    for number in (1, 3):
        # Its header is whole, so measuring sees nothing wrong with it: only decoding does.
        image = tmp_path / f"data/images/{number}.png"
        image.write_bytes(image.read_bytes()[:-100])
    strict = made.model_copy(update={"quarantine": QuarantineConfig(allow=1, share=0.0)})
    loose = made.model_copy(update={"quarantine": QuarantineConfig(allow=1000)})
    expected = weights(train(loose, tmp_path / "whole"))
    with pytest.raises(DataError, match="could not be read"):
        train(strict, tmp_path / "run")
    done = lines(tmp_path / "run/metrics.jsonl")[-1]["step"]
    assert done > 0
    assert states(tmp_path / "run") == [f"00-{done:08d}"]
    assert_equal(weights(train(loose, tmp_path / "run", resume=True)), expected)
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")
    assert lines(tmp_path / "run/quarantine.jsonl") == lines(tmp_path / "whole/quarantine.jsonl")


class Poison(Callback):
    """Makes the losses of the steps after `after` of them no numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: set[int]) -> None:
        self.done = 0
        sound = NextToken.forward

        def forward(objective: NextToken, *given: Any) -> torch.Tensor:
            return sound(objective, *given) * (math.nan if self.done in after else 1.0)

        monkeypatch.setattr(NextToken, "forward", forward)

    def stage_started(self, stage_run: StageRun) -> None:
        self.done = stage_run.step

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        self.done = stage_run.step


def test_steps_that_are_not_finite_leave_the_state_of_the_last_that_was(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    poison = Poison(monkeypatch, {3, 4, 5})
    patient = made.model_copy(update={"recovery": RecoveryConfig(streak=9)})
    expected = weights(train(patient, tmp_path / "whole", poison))
    told: list[dict[str, Any]] = []
    hasty = made.model_copy(update={"recovery": RecoveryConfig(streak=3)})
    with pytest.raises(RunError, match="3 steps in a row"):
        Trainer(hasty, RunFolder(tmp_path / "run"), callbacks=[poison], announce=told.append).run()
    assert states(tmp_path / "run") == ["00-00000003"]
    assert "00-00000003; --resume goes on from there" in told[-1]["note"]
    assert_equal(weights(train(patient, tmp_path / "run", poison, resume=True)), expected)
    assert [line["skipped"] for line in lines(tmp_path / "run/metrics.jsonl")][2:7] == [
        False, True, True, True, False,
    ]  # fmt: skip


def test_a_state_that_failed_its_proof_is_kept_apart(parts: Parts, made: Recipe, tmp_path: Path):
    class Nudge(Callback):
        def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
            with torch.no_grad():
                stage_run.model.language.lm_head.weight.add_(1e-3)

    still = stage(train={"connector": 1.0})
    told: list[dict[str, Any]] = []
    run = RunFolder(tmp_path / "run")
    only = made.model_copy(
        update={"stages": [recipe(parts, {"chat": {"format": "llava"}}, [still]).stages[0]]}
    )
    with pytest.raises(ProofError):
        Trainer(only, run, callbacks=[Nudge()], announce=told.append).run()
    assert states(tmp_path / "run") == ["unproved-00-00000002"]
    assert not has_checkpoint(run.state)
    assert "which --resume does not take" in told[-1]["note"]
    with pytest.raises(RunError, match="no training state to resume from"):
        train(only, tmp_path / "run", resume=True)


def test_any_error_of_the_inputs_leaves_the_state_behind(
    made: Recipe, whole: dict[str, torch.Tensor], tmp_path: Path
):
    with pytest.raises(DataError, match="the share is gone"):
        train(made, tmp_path / "run", Fail(4, DataError("the share is gone")))
    assert states(tmp_path / "run") == ["00-00000004"]
    assert_equal(weights(train(made, tmp_path / "run", resume=True)), whole)
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_step_without_enough_memory_stops_with_the_state_of_the_one_before(
    made: Recipe,
    whole: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
):
    sound = loop.accumulate

    def scarce(stage_run: StageRun, *given: Any) -> dict[str, float]:
        found = sound(stage_run, *given)
        if stage_run.step == 5:
            raise error
        return found

    with monkeypatch.context() as patch:
        patch.setattr(loop, "accumulate", scarce)
        said = r"out of memory on cpu after step 5.*\n.*`micro_batch` \(the result stays the same\)"
        with pytest.raises(RunError, match=said):
            train(made, tmp_path / "run")
    assert states(tmp_path / "run") == ["00-00000005"]
    assert_equal(weights(train(made, tmp_path / "run", resume=True)), whole)


def test_a_micro_batch_that_counts_is_lowered_in_a_new_run(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def scarce(*_: Any) -> dict[str, float]:
        raise MemoryError

    monkeypatch.setattr(loop, "accumulate", scarce)
    bound = made.stages[0].model_copy(update={"negatives": "micro_batch"})
    with pytest.raises(RunError, match=r"`micro_batch` \(in a new run: in this stage it changes"):
        train(made.model_copy(update={"stages": (bound,)}), tmp_path / "run")


def test_a_half_done_update_is_not_saved(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sound = torch.optim.AdamW.step
    calls = iter(range(99))

    def scarce(optimizer: torch.optim.AdamW) -> None:
        sound(optimizer)
        if next(calls) == 3:
            raise MemoryError

    monkeypatch.setattr(torch.optim.AdamW, "step", scarce)
    with pytest.raises(RunError, match="out of memory"):
        train(made, tmp_path / "run")
    assert not has_checkpoint(tmp_path / "run/state")


def test_other_faults_of_the_program_pass_as_they_are(made: Recipe, tmp_path: Path):
    with pytest.raises(RuntimeError, match="a defect"):
        train(made, tmp_path / "run", Fail(2, RuntimeError("a defect")))


class FakeJob:
    """Of a stage run what `_agreed_steps` looks at."""

    device = torch.device("cpu")

    def __init__(self, steps: list[Step], error: DataError | None) -> None:
        self.loader = self._load(steps, error)

    def _load(self, steps: list[Step], error: DataError | None) -> Any:
        yield from steps
        if error:
            raise error


@pytest.mark.parametrize("own", [None, DataError("mine")], ids=["another's", "own"])
def test_what_stops_one_process_stops_all_after_the_same_step(
    monkeypatch: pytest.MonkeyPatch, own: DataError | None
):
    asked: list[int] = []

    def summed(counts: list[int], device: torch.device) -> list[int]:
        asked.append(counts[0])
        return [int(len(asked) == 3)]

    monkeypatch.setattr(loop, "world", lambda: 2)
    monkeypatch.setattr(loop, "sum_counts", summed)
    others = DataError("another's")
    monkeypatch.setattr(processes, "gather_objects", lambda value: [None, value or others])
    steps = [Step((), {"steps": number}) for number in range(2 if own else 9)]
    seen: list[int] = []
    with pytest.raises(DataError, match="mine" if own else "another's"):
        seen.extend(step.cursor["steps"] for step in loop._agreed_steps(FakeJob(steps, own)))  # type: ignore[arg-type]
    assert seen == [0, 1]
    assert asked == [0, 0, int(own is not None)]

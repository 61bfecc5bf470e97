"""The proof of training: every known way to train something else than planned stops the run and is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.core.batch import Batch, Step
from sailvit.core.errors import ProofError
from sailvit.core.records import Record as DataRecord
from sailvit.data.processing.collate import collate
from sailvit.models.loading.build import ModelBundle
from sailvit.training.callbacks.proof import ProofCallback, fingerprint
from sailvit.training.optim import optimizer as optim
from sailvit.training.optim.optimizer import make_optimizer
from sailvit.training.stages import loop
from sailvit.training.stages.loop import run_stage
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts, mixed_records, record, samples
from tiny_runs import Record, lines, stage, stage_run

STEPS = 4


class Endless:
    """A loader of `count` equal steps."""

    def __init__(self, batch: Batch, count: int) -> None:
        self.step, self.count = Step((batch,), {}), count

    def __iter__(self) -> Any:
        return iter([self.step] * self.count)


def ready(
    bundle: ModelBundle,
    folder: Path,
    settings: dict[str, Any],
    records: list[DataRecord] | None = None,
) -> StageRun:
    batch = collate([samples(bundle, records or mixed_records())])
    settings = {"length": {"samples": STEPS * len(batch.sample_ids)}, **settings}
    made = stage_run(bundle, settings, folder, proof_steps=2)
    made.loader = Endless(batch, STEPS)  # type: ignore[assignment]
    return made


def prove(made: StageRun, *callbacks: Any) -> list[dict[str, Any]]:
    run_stage(made, [*callbacks, ProofCallback()])
    return lines(made.folder.proofs)


def failure(made: StageRun, *callbacks: Any) -> str:
    """What the proof says; its line is written before the run stops, and no further step is taken."""
    with pytest.raises(ProofError) as caught:
        prove(made, *callbacks)
    last = lines(made.folder.proofs)[-1]
    assert last["ok"] is False
    assert last["step"] == made.step
    return str(caught.value)


def test_the_clean_case_passes_and_is_written(parts: Parts, tmp_path: Path):
    made = ready(
        parts.build(),
        tmp_path,
        stage(train={"connector": 1.0, "tower": {"lr": 0.5, "last_blocks": 1}}),
    )
    told: list[dict[str, Any]] = []
    run_stage(made, [ProofCallback(told.append)])
    written = lines(tmp_path / "proofs.jsonl")
    assert told == written
    assert [(line["when"], line["step"], line["ok"]) for line in written] == [
        ("first steps", 2, True),
        ("end", STEPS, True),
    ]
    for line in written:
        rows = {row["part"]: row for row in line["rows"]}
        assert {row["verdict"] for row in line["rows"]} == {"as planned"}
        for part, row in rows.items():
            sizes = {n: p.numel() for n, p in made.model.part(part).named_parameters()}
            planned = sum(p.numel() for p in made.model.part(part).parameters() if p.requires_grad)
            assert row["planned"] == row["in_optimizer"] == row["moved"] == planned
            assert row["frozen"] == row["frozen_identical"] == sum(sizes.values()) - planned
        assert (
            rows["language"]["planned"]
            == 0
            < rows["tower"]["planned"]
            < rows["tower"]["frozen"] * 10
        )
        assert rows["language"]["lr"] == 0.0
    assert written[1]["rows"][1]["lr"] == pytest.approx(1e-3, rel=0.2)


def group_missing(made: StageRun) -> None:
    made.optimizer.param_groups = [g for g in made.optimizer.param_groups if g["part"] != "tower"]


def one_missing(made: StageRun) -> None:
    made.optimizer.param_groups[0]["params"] = made.optimizer.param_groups[0]["params"][1:]


def twice(made: StageRun) -> None:
    group = made.optimizer.param_groups[2]
    made.optimizer.param_groups.append({**group, "params": group["params"][:1]})


def frozen_held(made: StageRun) -> None:
    group = made.optimizer.param_groups[-1]
    group["params"] = [*group["params"], made.model.language.model.norm.weight]


@pytest.mark.parametrize(
    ("plant", "part", "message"),
    [
        (group_missing, "tower", "should train but no optimizer group holds them"),
        (one_missing, "tower", r"1 tensor \(.*\) should train but no optimizer group holds it"),
        (twice, "connector", r"1 tensor \(up.weight\) in more than one optimizer group"),
        (
            frozen_held,
            "language",
            r"1 tensor \(model.norm.weight\) should be frozen but an optimizer group holds it",
        ),
    ],
)
def test_groups_that_are_not_as_planned(
    parts: Parts, tmp_path: Path, plant: Callable[[StageRun], None], part: str, message: str
):
    made = ready(parts.build(), tmp_path, stage(train={"connector": 1.0, "tower": 0.5}))
    plant(made)
    said = failure(made)
    assert re.search(rf"\n  {part}: .*{message}", said), said
    assert made.step == 2
    assert len([line for line in said.splitlines() if line.startswith("  ")]) == 1


def test_requires_grad_set_on_a_module_freezes_nothing(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The best known defect: an attribute of the module, not of its parameters."""

    def freeze(model: Any, only: Any) -> None:
        for part in ("tower", "connector", "language"):
            model.part(part).requires_grad = part in only.train

    monkeypatch.setattr("tiny_runs.freeze", freeze)
    made = ready(parts.build(), tmp_path, stage(train={"connector": 1.0}))
    said = failure(made)
    assert "tower: " in said
    assert "language: " in said
    assert "should be frozen but an optimizer group holds them" in said
    assert "connector: " not in said


def test_a_frozen_part_that_changes_is_named(parts: Parts, tmp_path: Path):
    """As by a second optimizer, an averaged copy, or tied weights."""
    made = ready(parts.build(), tmp_path, stage(train={"connector": 1.0}))

    class Nudge(Record):
        def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
            with torch.no_grad():
                stage_run.model.language.lm_head.weight[3, 5] += 1e-6

    assert "language: 1 tensor (lm_head.weight) should be frozen but changed" in failure(
        made, Nudge()
    )


def test_a_rate_that_is_never_applied(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "set_rate", lambda optimizer, rate: {"connector": 1e-3})
    made = ready(parts.build(), tmp_path, stage(train={"connector": 1.0}))
    for group in made.optimizer.param_groups:
        group["lr"] = 0.0
    said = failure(made)
    assert "connector: learning rate 0 at step 1; planned is 0.000" in said


def test_a_share_that_is_never_applied(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unshared(optimizer: Any, rate: float) -> dict[str, float]:
        applied = optim.set_rate(optimizer, rate)
        for group in optimizer.param_groups:
            group["lr"] = applied["connector"]
        return applied

    monkeypatch.setattr(loop, "set_rate", unshared)
    made = ready(parts.build(), tmp_path, stage(train={"connector": 1.0, "tower": 0.1}))
    said = failure(made)
    assert "tower: learning rate" in said
    assert "connector" not in said


def test_an_optimizer_that_does_not_step(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = ready(parts.build(), tmp_path, stage(train={"connector": 1.0}))
    monkeypatch.setattr(made.optimizer, "step", lambda: None)
    assert (
        "connector: 6 tensors (down.bias, down.weight, norm.bias, ...) should train but did not move"
        in failure(made)
    )


def test_an_optimizer_of_other_tensors(parts: Parts, tmp_path: Path):
    """As when weights are replaced after the optimizer was made."""
    made = ready(parts.build(), tmp_path, stage(train={"connector": 1.0}))
    up = made.model.connector.up
    up.weight = torch.nn.Parameter(up.weight.detach().clone())
    assert (
        "connector: 1 tensor (up.weight) should train but no optimizer group holds it"
        in failure(made)
    )


def test_a_tower_in_a_stage_without_images(parts: Parts, tmp_path: Path):
    """The proof waits for an image, and at the stage's end says that none came."""
    made = ready(parts.build(), tmp_path, stage(), [record("text"), record("more", answer="red")])
    said = failure(made)
    assert "tower: " in said
    assert "did not move (no sample of this stage had an image)" in said
    assert "language" not in said
    assert [line["when"] for line in lines(made.folder.proofs)] == ["end"]


def test_a_language_alone_needs_no_image_for_its_first_proof(parts: Parts, tmp_path: Path):
    settings = stage(train={"language": 1.0})
    made = ready(parts.build(), tmp_path, settings, [record("text"), record("more", answer="red")])
    prove(made)
    assert [(line["when"], line["ok"]) for line in lines(made.folder.proofs)] == [
        ("first steps", True),
        ("end", True),
    ]


def test_a_long_warm_up_is_no_alarm(parts: Parts, tmp_path: Path):
    """At a rate of 1e-9 no norm weight can move in float32; the first proof waits for rates that show."""
    made = ready(parts.build(), tmp_path, stage(optim={"lr": 1e-5}, length={"samples": 1_000_000}))

    class Stop(Record):
        def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
            stage_run.stop = record.step == 3

    assert prove(made, Stop()) == []


SMALL = {"train": {"connector": 1.0, "tower": {"lr": 1.0, "layer_decay": 0.004}}}


def test_norms_of_ones_may_stand_still_where_a_rate_is_too_small_for_them(
    parts: Parts, tmp_path: Path
):
    """Weights of 1 are 6e-8 apart below it: the first block's rate of 1.6e-8 rounds to nothing."""
    made = ready(parts.build(), tmp_path, stage(**SMALL))
    told: list[dict[str, Any]] = []
    run_stage(made, [ProofCallback(told.append)])
    rows = {row["part"]: row for row in lines(made.folder.proofs)[-1]["rows"]}
    assert {row["verdict"] for row in rows.values()} == {"as planned"}
    assert rows["connector"]["waiting"] == 0
    assert 0 < rows["tower"]["waiting"] < rows["tower"]["planned"] / 10
    assert rows["tower"]["waiting"] + rows["tower"]["moved"] == rows["tower"]["planned"]
    notes = [line["note"] for line in told if "note" in line]
    assert "layer_norm1.weight" in notes[-1]
    assert re.search(r"could not move: at a rate of 1\.[56]e-08 or less", notes[-1])


def test_an_optimizer_that_does_not_step_is_found_at_a_small_rate_too(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = ready(parts.build(), tmp_path, stage(**SMALL))
    monkeypatch.setattr(made.optimizer, "step", lambda: None)
    said = failure(made)
    assert re.search(r"tower: \d+ tensors .* should train but did not move", said)
    assert "connector: 6 tensors" in said


def test_a_stopped_stage_is_proved_as_a_whole_when_it_is_done(parts: Parts, tmp_path: Path):
    """Little can move in the last step of a decayed rate: what counts is the stage, not the part after the resume."""
    made = ready(parts.build(), tmp_path, stage(train={"connector": 1.0}))

    class Stop(Record):
        def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
            stage_run.stop = record.step == STEPS - 1

    first, again = ProofCallback(), ProofCallback()
    run_stage(made, [Stop(), first])
    assert [line["when"] for line in lines(tmp_path / "proofs.jsonl")] == ["first steps"]
    again.load_state_dict(made, json.loads(json.dumps(first.state_dict())), {})
    made.stop = False
    made.loader = Endless(made.loader.step, 0)  # type: ignore[attr-defined, assignment]
    run_stage(made, [again])
    proved = lines(tmp_path / "proofs.jsonl")
    assert [(line["when"], line["ok"]) for line in proved] == [("first steps", True), ("end", True)]
    assert proved[1]["rows"][1]["moved"] == proved[0]["rows"][1]["moved"] > 0
    assert proved[1]["rows"][1]["lr"] == proved[0]["rows"][1]["lr"] > 0


def test_one_bit_and_its_place_change_a_fingerprint():
    tensor = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    swapped = tensor.flatten().clone()
    swapped[[1, 7]] = swapped[[7, 1]]
    nudged = tensor.clone()
    nudged.view(torch.int32)[2, 2] += 1
    prints = {fingerprint(t) for t in (tensor, swapped.view(3, 5), nudged, -tensor)}
    assert len(prints) == 4
    assert fingerprint(tensor.clone()) == fingerprint(tensor)
    assert fingerprint(tensor.T.contiguous().T) == fingerprint(tensor)


def test_large_tensors_are_fingerprinted_in_pieces(monkeypatch: pytest.MonkeyPatch):
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    whole = fingerprint(tensor)
    monkeypatch.setattr("sailvit.training.callbacks.proof._CHUNK", 7)
    assert fingerprint(tensor) == whole


def test_a_new_optimizer_makes_it_right_again(parts: Parts, tmp_path: Path):
    """The cases above fail for what was planted, not for the way they are set up."""
    made = ready(parts.build(), tmp_path, stage(train={"connector": 1.0, "tower": 0.5}))
    group_missing(made)
    made.optimizer = make_optimizer(made.model, made.objectives.values(), made.stage)
    assert all(line["ok"] for line in prove(made))

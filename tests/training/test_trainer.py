"""The trainer: what a run leaves behind, and that stopping and going on changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, Llama4TextConfig, ViTConfig

from sailvit.checkpoint.store import has_checkpoint
from sailvit.core.errors import InterruptedRunError, ModelError, ProofError, RecipeError, RunError
from sailvit.core.recipe import CheckpointConfig, Recipe
from sailvit.core.run import RunFolder, read_json
from sailvit.models.structure.connector import read_connector
from sailvit.training import trainer as module
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from sailvit.training.trainer import Trainer
from tiny_parts import TOWERS, Parts, save_language, save_tower
from tiny_runs import Record, lines, recipe, stage, three_stages, train, weights, write_data

TIMES = ("seconds", "wait", "samples_per_s", "answer_tokens_per_s", "mfu")


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine's speed takes longer than these runs."""
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def gradual(parts: Parts, sources: dict[str, Any]) -> Recipe:
    """Three stages over packed mixtures."""
    return recipe(parts, sources, three_stages())


@pytest.fixture(scope="module")
def whole(
    gradual: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, torch.Tensor], Record]:
    """The undisturbed run: its folder, its final weights, and what a callback saw."""
    folder, seen = tmp_path_factory.mktemp("whole"), Record()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "device_peak", lambda *_: 1e12)
        return folder, weights(train(gradual, folder, seen)), seen


class Kill(Callback):
    """Sends this process a signal after a step of a stage, as a terminal or a scheduler does."""

    def __init__(self, index: int, step: int, number: signal.Signals = signal.SIGTERM) -> None:
        self.place, self.number = (index, step), number

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        if (record.stage_index, record.step) == self.place:
            os.kill(os.getpid(), self.number)


def measured(folder: Path) -> list[dict[str, Any]]:
    """The steps' lines without what depends on the clock."""
    return [
        {k: v for k, v in line.items() if k not in TIMES}
        for line in lines(folder / "metrics.jsonl")
    ]


def assert_equal_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert not [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]


def test_a_run_leaves_parts_lines_and_lineage(whole: tuple, gradual: Recipe, parts: Parts):
    folder = whole[0]
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json", "metrics.jsonl", "proofs.jsonl", "stages", "tensorboard"
    }  # fmt: skip
    assert sorted(p.name for p in (folder / "stages").iterdir()) == [
        "00-coarse",
        "01-fine",
        "02-world",
    ]
    manifest = read_json(folder / "manifest.json")
    assert manifest["parents"]["tower"]["source"] == parts.tower("siglip")
    assert len({entry["fingerprint"] for entry in manifest["parents"].values()}) == 3
    assert manifest["parents"]["connector"] == {"source": "fresh, seed 3", "fingerprint": None}
    assert manifest["seed"] == 3
    assert manifest["data"].keys() == {"chat", "captions", "text"}
    assert manifest["versions"].keys() >= {"torch", "transformers", "python"}
    assert [entry["train"] for entry in manifest["stages"]] == [
        {"connector": 1.0},
        {"connector": 1.0, "tower": 0.5},
        {"connector": 1.0, "tower": 0.5, "language": 0.25},
    ]
    for entry in manifest["stages"]:
        own = [line for line in lines(folder / "metrics.jsonl") if line["stage"] == entry["name"]]
        assert (entry["samples"], entry["tokens"], entry["steps"]) == (
            20,
            own[-1]["tokens"],
            len(own),
        )
        assert [line["step"] for line in own] == list(range(1, len(own) + 1))
        assert entry["parts"] == {
            part: f"stages/{entry['index']:02d}-{entry['name']}/{part}"
            for part in ("tower", "connector", "language")
        }
    assert manifest["resumed"] == []


def test_metrics_say_what_each_step_did(whole: tuple, gradual: Recipe):
    folder, _, seen = whole
    written = lines(folder / "metrics.jsonl")
    assert len(written) == len(seen.records)
    for line, record in zip(written, seen.records, strict=True):
        assert line == json.loads(json.dumps(vars(record)))
        assert line.keys() >= {"padding", "lr", "loss", "grad_norm", "wait", "mfu", *TIMES}
        assert line["loss"].keys() == gradual.stages[line["stage_index"]].objectives.keys()
        assert 0 <= line["padding"] < 1
        assert all(value > 0 for value in line["lr"].values())
    assert seen.moments == [
        f"{what} {name}" for name in ("coarse", "fine", "world") for what in ("started", "ended")
    ] + ["closed"]
    proofs = lines(folder / "proofs.jsonl")
    assert [(line["stage"], line["when"]) for line in proofs] == [
        (name, when) for name in ("coarse", "fine", "world") for when in ("first steps", "end")
    ]
    assert all(line["ok"] for line in proofs)
    assert [p.name for p in (folder / "tensorboard").iterdir()]


def test_saved_parts_are_those_in_memory_and_frozen_ones_those_of_the_recipe(
    whole: tuple, parts: Parts
):
    folder, final, _ = whole
    last, first = folder / "stages/02-world", folder / "stages/00-coarse"
    towers = [
        AutoModel.from_pretrained(place).state_dict()
        for place in (first / "tower", parts.tower("siglip"))
    ]
    assert_equal_weights(*towers)
    tower = AutoModel.from_pretrained(last / "tower").state_dict()
    language = AutoModelForCausalLM.from_pretrained(last / "language").state_dict()
    connector = read_connector(last / "connector").state_dict()
    saved = {f"tower.model.{n}": t for n, t in tower.items()} | {
        f"language.{n}": t for n, t in language.items()
    }
    assert_equal_weights(saved | {f"connector.{n}": t for n, t in connector.items()}, final)
    assert not torch.equal(
        tower["encoder.layers.0.mlp.fc1.weight"], towers[0]["encoder.layers.0.mlp.fc1.weight"]
    )


def test_the_same_recipe_gives_the_same_weights(whole: tuple, gradual: Recipe, tmp_path: Path):
    torch.manual_seed(99)
    again = weights(train(gradual, tmp_path / "run"))
    assert_equal_weights(again, whole[1])
    other = weights(train(gradual.model_copy(update={"seed": 4}), tmp_path / "other"))
    assert not torch.equal(other["connector.up.weight"], whole[1]["connector.up.weight"])


@pytest.mark.parametrize(
    ("kills", "workers"),
    [
        ([Kill(1, 1, signal.SIGINT)], 0),
        ([Kill(0, 2, signal.SIGTERM), Kill(1, 2, signal.SIGINT)], 0),
        ([Kill(1, 1, signal.SIGTERM)], 1),
    ],
    ids=["ctrl-c", "twice", "with a loader process"],
)
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    whole: tuple, gradual: Recipe, tmp_path: Path, kills: list[Kill], workers: int
):
    made = gradual.model_copy(update={"workers": workers})
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for attempt, kill in enumerate(kills):
        with pytest.raises(
            InterruptedRunError, match=rf"stopped by {kill.number.name} after step .* --resume"
        ) as stop:
            train(made, tmp_path, kill, resume=attempt > 0)
        assert "state is in" in str(stop.value)
        assert has_checkpoint(tmp_path / "state")
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    final = weights(train(made, tmp_path, resume=True))
    assert_equal_weights(final, whole[1])
    assert measured(tmp_path) == measured(whole[0])
    assert [(p["stage"], p["when"]) for p in lines(tmp_path / "proofs.jsonl")] == [
        (p["stage"], p["when"]) for p in lines(whole[0] / "proofs.jsonl")
    ]
    manifest = read_json(tmp_path / "manifest.json")
    assert [entry["stage"] for entry in manifest["resumed"]] == [
        gradual.stages[k.place[0]].name for k in kills
    ]
    assert [s["name"] for s in manifest["stages"]] == ["coarse", "fine", "world"]
    assert not (tmp_path / "state").exists()
    with pytest.raises(RunError, match="is complete, 3 of 3 stages; there is nothing to resume"):
        train(made, tmp_path, resume=True)


def test_a_stop_changes_nothing_in_bf16_with_dropout_and_accumulation(
    parts: Parts, sources: dict, tmp_path: Path
):
    save_tower(
        ViTConfig(**{**TOWERS["vit"].to_dict(), "hidden_dropout_prob": 0.2}), tmp_path / "tower"
    )
    model = {"tower": str(tmp_path / "tower"), "language": parts.language("llama")}
    stages = [
        stage(
            objectives={"next_token": 1.0, "contrastive": 0.1},
            data=["captions", "chat"],
            global_batch=4,
        )
    ]
    made = recipe(parts, sources, stages, precision="bf16", model=model)
    expected = weights(train(made, tmp_path / "whole"))
    with pytest.raises(InterruptedRunError):
        train(made, tmp_path / "stopped", Kill(0, 1))
    assert_equal_weights(weights(train(made, tmp_path / "stopped", resume=True)), expected)
    assert measured(tmp_path / "stopped") == measured(tmp_path / "whole")


def test_a_stop_by_a_callback_is_told_as_that_and_no_preemption(
    parts: Parts, sources: dict, tmp_path: Path
):
    class Enough(Callback):
        def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
            stage_run.stop = record.step == 2

    made = recipe(parts, sources, [stage()])
    with pytest.raises(InterruptedRunError, match="stopped by a callback after step 2") as stop:
        train(made, tmp_path, Enough())
    assert not stop.value.preempted


class Slower(Callback):
    """Sets the rate's factor, and keeps it over a stop."""

    def __init__(self, stop: int | None = None) -> None:
        self.factor, self.last = 0.5, stop

    def stage_started(self, stage_run: StageRun) -> None:
        stage_run.rate_factor = self.factor

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        self.factor *= 0.5
        stage_run.rate_factor = self.factor
        stage_run.stop = record.step == self.last

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def load_state_dict(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        del tensors
        self.factor = run.rate_factor = state["factor"]


def test_a_callback_may_set_the_rates_of_the_steps_to_come(
    parts: Parts, sources: dict, tmp_path: Path
):
    flat = {"name": "constant", "warmup": 0.0}
    made = recipe(parts, sources, [stage(schedule=flat, length={"samples": 40})])
    with pytest.raises(InterruptedRunError):
        train(made, tmp_path, Slower(stop=2))
    train(made, tmp_path, Slower(), resume=True)
    rates = [line["lr"]["connector"] for line in lines(tmp_path / "metrics.jsonl")]
    assert rates == pytest.approx([1e-3 * 0.5**step for step in range(1, len(rates) + 1)])
    assert len(rates) > 3


class PowerLossError(Exception):
    """The machine went down, without a word."""


class PowerLoss(Callback):
    """Ends the run without a signal."""

    def __init__(self, index: int, step: int) -> None:
        self.place = (index, step)

    def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
        if (record.stage_index, record.step) == self.place:
            raise PowerLossError


@pytest.mark.parametrize(
    ("every", "place"), [(2, (1, 3)), (None, (2, 2))], ids=["checkpoint", "stage's beginning"]
)
def test_a_crashed_run_goes_on_from_its_last_save(
    whole: tuple, gradual: Recipe, tmp_path: Path, every: int | None, place: tuple[int, int]
):
    made = gradual.model_copy(update={"checkpoint": CheckpointConfig(every=every)})
    with pytest.raises(PowerLossError):
        train(made, tmp_path, PowerLoss(*place))
    assert_equal_weights(weights(train(made, tmp_path, resume=True)), whole[1])
    assert measured(tmp_path) == measured(whole[0])


def test_a_run_stopped_after_a_stages_last_step_has_only_to_prove_and_save_it(
    whole: tuple, gradual: Recipe, tmp_path: Path
):
    last = [line for line in lines(whole[0] / "metrics.jsonl") if line["stage"] == "fine"][-1][
        "step"
    ]
    # The signal arrives after the step before the last, so the last one is the one in progress.
    with pytest.raises(InterruptedRunError, match=f"after step {last} of stage fine"):
        train(gradual, tmp_path, Kill(1, last - 1))
    assert_equal_weights(weights(train(gradual, tmp_path, resume=True)), whole[1])
    assert measured(tmp_path) == measured(whole[0])
    assert len(lines(tmp_path / "proofs.jsonl")) == 6


def test_a_folder_that_holds_a_run_is_left_alone(whole: tuple, gradual: Recipe):
    before = (whole[0] / "manifest.json").read_text()
    with pytest.raises(RunError, match="already holds a finished run"):
        train(gradual, whole[0])
    assert (whole[0] / "manifest.json").read_text() == before


def test_without_a_run_there_is_nothing_to_resume(gradual: Recipe, tmp_path: Path):
    with pytest.raises(RunError, match="no training state"):
        train(gradual, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"start_from": {"tower": "/not/there"}},
            r"stages\.1\.start_from\.tower: /not/there does not exist",
        ),
        ({"objectives": {"next_tokn": 1}}, "unknown objective 'next_tokn'"),
        ({"train": {"tower": {"last_blocks": 9}}}, "last_blocks is 9"),
        ({"train": {}}, "stage late trains nothing"),
    ],
    ids=str,
)
def test_a_mistake_in_the_last_stage_shows_before_the_first(
    parts: Parts, sources: dict, tmp_path: Path, change: dict, message: str
):
    made = recipe(parts, sources, [stage("early"), stage("late", **change)])
    with pytest.raises(RecipeError, match=message):
        train(made, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_stages_start_from_previous_recipe_or_folder(
    whole: tuple, parts: Parts, sources: dict, tmp_path: Path
):
    other = whole[0] / "stages/02-world"
    still = {"data": ["text"], "length": {"samples": 2}, "train": {"language": 1.0}}
    stages = [
        stage("first", train={"connector": 1.0}, length={"samples": 4}),
        stage(
            "second",
            **still,
            start_from={"tower": str(other / "tower"), "connector": str(other / "connector")},
        ),
        stage(
            "third",
            **still,
            start_from={"tower": "recipe", "connector": "previous", "language": "recipe"},
        ),
        stage(
            "fourth",
            **still,
            start_from={"connector": "recipe", "language": str(other / "language")},
        ),
    ]
    made = recipe(parts, sources, stages)
    final = train(made, tmp_path / "run")
    run = RunFolder(tmp_path / "run")

    def connector(place: Path) -> torch.Tensor:
        return read_connector(place / "connector").up.weight

    def tower(place: str | Path) -> torch.Tensor:
        return AutoModel.from_pretrained(place).encoder.layers[1].mlp.fc2.weight

    places = [run.stage(index, made.stages[index].name) for index in range(4)]
    assert torch.equal(connector(places[1]), connector(other))
    assert torch.equal(tower(places[1] / "tower"), tower(other / "tower"))
    assert torch.equal(tower(places[2] / "tower"), tower(parts.tower("siglip")))
    assert torch.equal(connector(places[2]), connector(other))
    fresh = parts.config()
    assert torch.equal(connector(places[3]), module.build(fresh, 3).mllm.connector.up.weight)
    close = AutoModelForCausalLM.from_pretrained(other / "language").lm_head.weight
    assert (final.mllm.language.lm_head.weight - close).abs().max() < 5e-3
    assert read_json(run.manifest)["stages"][1]["start"]["tower"] == str(other / "tower")


def test_a_frozen_part_from_a_folder_survives_a_stop(
    whole: tuple, parts: Parts, sources: dict, tmp_path: Path
):
    """It is neither trained nor what the recipe names, so the state must hold it."""
    other = str(whole[0] / "stages/02-world/language")
    stages = [stage(train={"connector": 1.0}, start_from={"language": other})]
    made = recipe(parts, sources, stages)
    expected = weights(train(made, tmp_path / "whole"))
    with pytest.raises(InterruptedRunError):
        train(made, tmp_path / "stopped", Kill(0, 1))
    assert_equal_weights(weights(train(made, tmp_path / "stopped", resume=True)), expected)


def test_a_start_that_does_not_fit_is_refused(parts: Parts, sources: dict, tmp_path: Path):
    stages = [stage(train={"connector": 1.0}, start_from={"tower": parts.tower("clip")})]
    with pytest.raises(ModelError, match=r"the tower to start from in .*clip does not fit"):
        train(recipe(parts, sources, stages), tmp_path)


@pytest.mark.parametrize(
    ("length", "samples"),
    [({"samples": 5}, 5), ({"epochs": 2}, 18), ({"epochs": 0.5}, 4), ({"tokens": 600}, None)],
    ids=str,
)
def test_a_stage_is_as_long_as_it_says(
    parts: Parts, sources: dict, tmp_path: Path, length: dict, samples: int | None
):
    train(recipe(parts, sources, [stage(length=length, save=["connector"])]), tmp_path)
    done = read_json(tmp_path / "manifest.json")["stages"][0]
    if samples is not None:
        assert done["samples"] == samples
    else:
        tokens = [line["tokens"] for line in lines(tmp_path / "metrics.jsonl")]
        assert tokens[-2] < 600 <= tokens[-1] == done["tokens"]
    held = sorted(path.name for path in (tmp_path / "stages/00-only").iterdir())
    assert held == ["connector", "model.json"]


def test_a_token_stage_stopped_at_its_end_takes_no_step_more(
    parts: Parts, sources: dict, tmp_path: Path
):
    made = recipe(parts, sources, [stage(length={"tokens": 600})])
    expected = weights(train(made, tmp_path / "whole"))
    last = lines(tmp_path / "whole/metrics.jsonl")[-1]["step"]
    with pytest.raises(InterruptedRunError):
        train(made, tmp_path / "stopped", Kill(0, last - 1))
    assert_equal_weights(weights(train(made, tmp_path / "stopped", resume=True)), expected)


def test_a_token_stage_whose_sources_end_before_it_ends_with_its_schedule_and_says_so(
    parts: Parts, sources: dict, tmp_path: Path
):
    settings = {"data": {"chat": {"share": 1, "epochs": 2}}, "length": {"tokens": 100_000}}
    made = recipe(parts, sources, [stage(schedule={"name": "cosine"}, **settings)])
    told: list[dict[str, Any]] = []
    Trainer(made, RunFolder(tmp_path), announce=told.append).run()
    steps = lines(tmp_path / "metrics.jsonl")
    assert steps[-1]["samples"] == 18
    assert steps[-1]["done"] == 1
    assert steps[-1]["lr"]["connector"] < 0.1 * max(step["lr"]["connector"] for step in steps)
    [note] = [line["note"] for line in told if "sources end" in line.get("note", "")]
    assert note.startswith("stages.0 (only): its sources end after")
    assert f"{steps[-1]['tokens']:,} tokens" in note
    assert "length.tokens asks for 100,000 tokens" in note


def test_micro_batches_do_not_change_the_result(parts: Parts, sources: dict, tmp_path: Path):
    runs = [
        weights(
            train(
                recipe(parts, sources, [stage(global_batch=4, micro_batch=micro)]),
                tmp_path / str(micro),
            )
        )
        for micro in (1, 4)
    ]
    grown = [line["loss"]["next_token"] for line in lines(tmp_path / "1/metrics.jsonl")]
    assert grown == pytest.approx(
        [line["loss"]["next_token"] for line in lines(tmp_path / "4/metrics.jsonl")], rel=1e-4
    )
    far = [name for name in runs[0] if (runs[0][name] - runs[1][name]).abs().max() > 2e-4]
    # Attention's key bias has no true gradient, so Adam makes whole steps of rounding noise there.
    assert not [name for name in far if not name.endswith("k_proj.bias")]


def test_what_the_run_folder_is_not_given_it_does_not_write(
    parts: Parts, sources: dict, tmp_path: Path
):
    """A defect stops the run: no part of the stage is saved, and no state that a resumed run would take."""

    class Nudge(Callback):
        def step_ended(self, stage_run: StageRun, record: StepRecord) -> None:
            with torch.no_grad():
                stage_run.model.language.lm_head.weight.add_(1e-3)

    made = recipe(parts, sources, [stage(train={"connector": 1.0})])
    with pytest.raises(
        ProofError, match=r"language: 1 tensor \(lm_head.weight\) should be frozen but changed"
    ):
        train(made, tmp_path, Nudge())
    assert not (tmp_path / "stages").exists()
    assert not has_checkpoint(tmp_path / "state")
    assert lines(tmp_path / "proofs.jsonl")[-1]["ok"] is False


def test_announcements_are_the_parts_the_way_of_packing_and_the_proofs(
    parts: Parts, sources: dict, tmp_path: Path
):
    told: list[dict[str, Any]] = []
    Trainer(recipe(parts, sources, [stage()]), RunFolder(tmp_path), announce=told.append).run()
    assert set(told[0]["parts"]) == {"tower", "connector", "language"}
    assert told[0]["note"].startswith("parameters: tower ")
    assert told[1]["note"].startswith("packing: packed (no attention and no layer crosses")
    assert told[2:] == lines(tmp_path / "proofs.jsonl")
    shutil.rmtree(tmp_path)


def test_the_proof_of_packing_reads_the_longest_row_of_a_run(
    parts: Parts, sources: dict, tmp_path: Path
):
    """Two packs in a row reach the place from which Llama 4 would scale scores otherwise."""
    size = dict.fromkeys(("hidden_size", "intermediate_size", "intermediate_size_mlp"), 32)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    scale = {"floor_scale": 120, "attn_scale": 1.0, "no_rope_layers": [0]}
    save_language(
        Llama4TextConfig(
            **size, **heads, **scale, num_hidden_layers=1, vocab_size=405, num_local_experts=2,
            initializer_range=0.2, bos_token_id=None, eos_token_id=2, pad_token_id=0,
        ),
        tmp_path / "language",
    )  # fmt: skip
    for packs, way in ((1, "packed"), (2, "rows")):
        told: list[dict[str, Any]] = []
        made = recipe(parts, sources, [stage(length={"samples": 2}, micro_batch=packs)])
        model = made.model.model_copy(update={"language": str(tmp_path / "language")})
        made = made.model_copy(update={"model": model})
        Trainer(made, RunFolder(tmp_path / way), announce=told.append).run()
        assert any(one.get("note", "").startswith(f"packing: {way} ") for one in told)

"""A language that trains through adapters: they alone move, are proved, saved, resumed and sharded."""

from __future__ import annotations

import json
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

import sailvit
from sailvit.core.errors import InterruptedRunError, ProofError
from sailvit.core.recipe import ParallelConfig, Recipe
from sailvit.distributed.sharding import whole_state
from sailvit.models.languages.adapters import merged
from sailvit.models.structure.parallel import parallelize
from sailvit.training import trainer as trainer_module
from sailvit.training.output.manifest import fingerprint_folder
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts, mixed_records, samples, single_batches
from tiny_runs import lines, recipe, stage, train, weights, write_data
from two_processes import in_two

LORA = {"rank": 4, "dropout": 0.1, "keep": True}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_data(tmp_path_factory.mktemp("data"))


def made(parts: Parts, sources: dict[str, Any], **changes: Any) -> Recipe:
    language = {"lr": 0.5, "layer_decay": 0.5}
    stages = [
        stage("align", train={"connector": 1.0}, length={"samples": 8}),
        stage("instruct", train={"connector": 1.0, "language": language}),
    ]
    model = parts.config(lora={**LORA, **changes.pop("lora", {})}).model_dump()
    return recipe(parts, sources, stages, **{"model": model, **changes})


class Watch(Callback):
    """Keeps what the optimizer of the last stage holds, and may stop a run."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.held: dict[str, set[float]] = {}

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        if run.stage.share("language"):
            run.stop = record.step == self.stop
            names = {id(p): name for name, p in run.model.language.named_parameters()}
            for group in run.optimizer.param_groups:
                for parameter in group["params"] if group["part"] == "language" else ():
                    self.held.setdefault(names[id(parameter)], set()).add(group["share"])
                    assert parameter in run.optimizer.state


def test_adapters_alone_train_and_the_folder_is_a_plain_language(
    parts: Parts, sources: dict[str, Any], tmp_path: Path
):
    watch = Watch()
    bundle = train(made(parts, sources), tmp_path / "run", watch)
    language, adapters = bundle.mllm.language, bundle.mllm.adapters
    assert adapters is not None
    assert watch.held.keys() == adapters.names
    # Two blocks: the last at half of the part's rate, the first at a quarter.
    assert watch.held["model.layers.1.mlp.up_proj.lora_A.default.weight"] == {0.25}
    assert watch.held["model.layers.0.mlp.up_proj.lora_B.default.weight"] == {0.125}
    row = lines(tmp_path / "run/proofs.jsonl")[-1]["rows"][-1]
    count = sum(p.numel() for n, p in language.named_parameters() if n in adapters.names)
    whole = sum(p.numel() for p in language.parameters())
    assert (row["planned"], row["in_optimizer"], row["moved"]) == (count,) * 3
    assert (row["frozen"], row["frozen_identical"]) == (whole - count,) * 2
    base = load_file(Path(parts.language("llama")) / "model.safetensors")
    folder = tmp_path / "run/stages/01-instruct/language"
    written = load_file(folder / "model.safetensors")
    moved = {name for name in base if not torch.equal(written[name][: len(base[name])], base[name])}
    assert moved == {name for name in base if "proj" in name}
    for name, tensor in merged(language, whole_state(language)).items():
        assert name not in written or torch.equal(written[name], tensor)
    config = json.loads((folder / "adapter/adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (4, parts.language("llama"))
    first = tmp_path / "run/stages/00-align/language"
    assert fingerprint_folder(str(first)) != fingerprint_folder(str(folder))


class Hold(Callback):
    """Puts matrices back to what they were when the stage began, after every step."""

    def __init__(self, name: str) -> None:
        self.name = name

    def stage_started(self, run: StageRun) -> None:
        self.kept = {
            n: p.detach().clone()
            for n, p in run.model.language.named_parameters()
            if self.name in n
        }
        # As a step that leaves them out; at the end of a step the proof has looked already.
        run.optimizer.register_step_post_hook(lambda *step: self.put_back(run))

    def put_back(self, run: StageRun) -> None:
        for name, parameter in run.model.language.named_parameters():
            if name in self.kept:
                parameter.data.copy_(self.kept[name])


def without_decay(parts: Parts, sources: dict[str, Any], samples: int) -> Recipe:
    only = stage(
        "instruct",
        train={"language": 1.0},
        length={"samples": samples},
        optim={"lr": 1e-2, "weight_decay": 0.0, "clip": 1.0},
    )
    model = parts.config(lora={"rank": 4}).model_dump()
    return recipe(parts, sources, [only], model=model, proof_steps=1)


def test_a_stage_of_one_step_moves_the_second_matrices_alone(
    parts: Parts, sources: dict[str, Any], tmp_path: Path
):
    language = train(without_decay(parts, sources, 2), tmp_path / "run").mllm.language
    sizes = {n: p.numel() for n, p in language.named_parameters()}
    first, second = (sum(n for name, n in sizes.items() if f"lora_{each}" in name) for each in "AB")
    for proof in lines(tmp_path / "run/proofs.jsonl"):
        row = proof["rows"][-1]
        assert (proof["step"], row["verdict"]) == (1, "as planned")
        assert (row["planned"], row["moved"], row["waiting"]) == (first + second, second, first)


def test_after_a_second_step_all_have_moved(parts: Parts, sources: dict[str, Any], tmp_path: Path):
    with pytest.raises(InterruptedRunError):
        train(without_decay(parts, sources, 12), tmp_path / "run", Watch(stop=1))
    train(without_decay(parts, sources, 12), tmp_path / "run", resume=True)
    begun, ended = (proof["rows"][-1] for proof in lines(tmp_path / "run/proofs.jsonl"))
    assert begun["moved"] + begun["waiting"] == begun["planned"] == ended["moved"]
    assert ended["waiting"] == 0


@pytest.mark.parametrize("name", ["lora_A", "lora_B"])
def test_matrices_that_stand_still_are_named(
    name: str, parts: Parts, sources: dict[str, Any], tmp_path: Path
):
    with pytest.raises(ProofError, match=rf"{name}.* should train but did not move") as caught:
        train(without_decay(parts, sources, 12), tmp_path / "run", Hold(name))
    assert ("lora_B" if name == "lora_A" else "lora_A") not in str(caught.value)


def test_what_a_run_saved_answers_without_adapters(
    parts: Parts, sources: dict[str, Any], tmp_path: Path
):
    bundle = train(made(parts, sources), tmp_path / "run")
    # model.json says how the parts join, adapters left out.
    (tmp_path / "run/stages/01-instruct").rename(tmp_path / "copy")
    model = sailvit.load_run(tmp_path / "copy")
    assert model.bundle.mllm.adapters is None
    batch = single_batches(samples(bundle, mixed_records()))[2]
    bundle.mllm.eval()
    with torch.no_grad():
        expected, found = bundle.mllm(batch).logits, model.bundle.mllm(batch).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("packing", ["packed", "rows"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    packing: str, parts: Parts, sources: dict[str, Any], tmp_path: Path
):
    """With dropout; the states hold adapters and nothing else of the language."""
    wanted = made(parts, sources, parallel={"packing": packing})
    expected = weights(train(wanted, tmp_path / "whole"))
    with pytest.raises(InterruptedRunError):
        train(wanted, tmp_path / "stopped", Watch(stop=3))
    [file] = (tmp_path / "stopped/state/01-00000003").glob("*.safetensors")
    held = {name for name in load_file(file) if name.startswith("weight/language/")}
    assert held
    assert all("lora_" in name for name in held)
    bundle = train(wanted, tmp_path / "stopped", resume=True)
    for name, tensor in weights(bundle).items():
        assert torch.equal(tensor, expected[name]), name


def test_a_stage_may_start_from_fresh_adapters(
    parts: Parts, sources: dict[str, Any], tmp_path: Path
):
    first = made(parts, sources)
    again = first.stages[1].model_copy(
        update={"name": "again", "start_from": {"language": "recipe"}}
    )
    stages = [first.stages[1], again]
    begun: list[dict[str, torch.Tensor]] = []

    class Begin(Callback):
        def stage_started(self, run: StageRun) -> None:
            begun.append({k: v.clone() for k, v in run.model.language.state_dict().items()})

    train(first.model_copy(update={"stages": stages}), tmp_path / "run", Begin())
    assert all(torch.equal(tensor, begun[1][name]) for name, tensor in begun[0].items())


@pytest.mark.parametrize("mode", [pytest.param("replicate", marks=pytest.mark.slow), "shard"])
def test_two_processes_equal_one(
    mode: str,
    parts: Parts,
    sources: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
    wanted = made(parts, sources, lora={"dropout": 0.0})
    train(wanted, tmp_path / "one")
    both = wanted.model_copy(update={"parallel": ParallelConfig(mode=mode)})
    (tmp_path / "said").mkdir()
    assert in_two(tmp_path / "said", lambda _: train(both, tmp_path / "two")) == ["done", "done"]
    for file in ("language/model", "language/adapter/adapter_model", "connector/model"):
        one, two = (
            load_file(tmp_path / f"{run}/stages/01-instruct/{file}.safetensors")
            for run in ("one", "two")
        )
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize(
    "how",
    [
        {"recompute": {"language": "full"}},
        {"recompute": {"language": "selective"}},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_recomputed_and_compiled_blocks_give_the_same_gradients(
    how: dict[str, Any], parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    # Traced and differentiated as a compiled run does it, without the C++ compiler's minute.
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    torch.compiler.reset()
    gradients = []
    for settings in ({}, how):
        bundle = parts.build(lora={"rank": 4})
        adapters = bundle.mllm.adapters
        assert adapters is not None
        parallelize(
            bundle.mllm, ParallelConfig.model_validate(settings), torch.device("cpu"), bf16=False
        )
        bundle.mllm.train()
        for name, parameter in bundle.mllm.language.named_parameters():
            parameter.requires_grad_(name in adapters.names)
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
        batch = single_batches(samples(bundle, mixed_records()))[1]
        bundle.mllm(batch).logits.square().sum().backward()
        language = bundle.mllm.language.named_parameters()
        gradients.append({n: p.grad for n, p in language if p.grad is not None})
        assert gradients[-1].keys() == adapters.names
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_adapters_that_no_stage_trains_and_other_bases_are_refused(
    parts: Parts, sources: dict[str, Any]
):
    with pytest.raises(ValidationError, match="no stage trains the language"):
        recipe(
            parts,
            sources,
            [stage(train={"connector": 1.0})],
            model=parts.config(lora=LORA).model_dump(),
        )
    with pytest.raises(ValidationError, match=r"it stays what model\.language names"):
        recipe(
            parts,
            sources,
            [stage(start_from={"language": "/somewhere"})],
            model=parts.config(lora=LORA).model_dump(),
        )
    with pytest.raises(ValidationError, match=r"lora\.target is an empty list"):
        parts.config(lora={"target": []})

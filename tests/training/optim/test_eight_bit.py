"""Moments of one byte: the published codes, near AdamW, resumed and sharded to the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sailvit.core.errors import InterruptedRunError
from sailvit.core.recipe import ParallelConfig, Recipe
from sailvit.training import trainer as trainer_module
from sailvit.training.monitoring.norms import update_norms
from sailvit.training.optim import eight_bit
from sailvit.training.optim.eight_bit import AdamW8bit, in_codes, moment, moment_bytes
from sailvit.training.optim.snapshot import Snapshot
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import recipe, stage, train, weights, write_data
from two_processes import in_two

SETTINGS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.05}


def steps(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, count: int) -> None:
    """Steps towards a fixed target, with noise."""
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(parameter.shape, generator=generator)
    for _ in range(count):
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.grad = parameter.detach() - target + 0.1 * noise
        optimizer.step()


def made(kind: type[torch.optim.AdamW], *shape: int) -> tuple[torch.optim.AdamW, Any]:
    parameter = torch.nn.Parameter(torch.zeros(shape))
    return kind([{"params": [parameter], "part": "tower"}], **SETTINGS), parameter


def test_codes_and_scales_are_those_of_torchao_but_for_second_moments_near_zero():
    utils = pytest.importorskip("torchao.optim.quant_utils")
    generator = torch.Generator().manual_seed(0)
    for signed, key in ((True, "exp_avg"), (False, "exp_avg_sq")):
        values = torch.randn(32, 256, generator=generator) * torch.logspace(-8, 2, 32)[:, None]
        values = values if signed else values.square()
        table = torch.tensor(utils.create_dynamic_map(signed=signed))
        assert torch.equal(eight_bit._values(signed=signed), table)
        part = {
            key: torch.zeros(32, 256, dtype=torch.uint8),
            f"{key}_scale": torch.zeros(32, 256 // eight_bit.BLOCK),
        }
        eight_bit._write(part, key, values)
        scaled, scale = utils.scale_tensor(values, eight_bit.BLOCK)
        codes = utils.quantize_8bit_with_qmap(scaled, table)
        if not signed:
            codes[(codes == 0) & (values > 0)] = 1
        assert torch.equal(part[key], codes)
        assert torch.equal(part[f"{key}_scale"].flatten(), scale)
        theirs = utils.dequant_with_qmap(codes, table, scale)
        assert torch.equal(eight_bit._read(part, key), theirs)


def test_it_learns_as_adamw_does():
    """The first step sees moments of zero, so it is the same; afterwards both reach the target."""
    pairs = [made(kind, 32, 256) for kind in (torch.optim.AdamW, AdamW8bit)]
    for optimizer, parameter in pairs:
        steps(optimizer, parameter, 1)
    torch.testing.assert_close(pairs[1][1], pairs[0][1], rtol=1e-6, atol=1e-8)
    start = float(pairs[0][1].detach().norm())
    for optimizer, parameter in pairs:
        steps(optimizer, parameter, 300)
    apart = float((pairs[1][1] - pairs[0][1]).detach().norm())
    moved = float(pairs[0][1].detach().norm()) - start
    assert apart < 0.05 * moved
    assert pairs[1][0].state[pairs[1][1]]["exp_avg"].dtype == torch.uint8


def test_rows_that_seldom_have_a_gradient_move_no_further_than_with_adamw():
    """As in a table of embeddings: most rows have none in most steps, and small values beside
    large ones had a second moment of zero."""
    generator, furthest = torch.Generator().manual_seed(0), []
    gradients = [torch.randn(1024, generator=generator) * 1e-2 for _ in range(60)]
    for kind in (torch.optim.AdamW, AdamW8bit):
        optimizer, parameter = made(kind, 8, 1024)
        optimizer.param_groups[0].update(lr=1e-5, weight_decay=0.0)
        moves = []
        for step, gradient in enumerate(gradients):
            before = parameter.detach().clone()
            parameter.grad = torch.zeros_like(parameter)
            parameter.grad[step * 5 % 8] = gradient
            optimizer.step()
            moves.append(float((parameter.detach() - before).abs().max()) / 1e-5)
        furthest.append(max(moves))
    assert furthest[0] == pytest.approx(1.0, rel=0.01)
    assert furthest[1] == pytest.approx(1.0, rel=0.01)


def test_a_second_moment_is_zero_only_where_it_was():
    values = torch.zeros(1, eight_bit.BLOCK)
    values[0, :3] = torch.tensor([1.0, 1e-9, 1e-30])
    part = {"exp_avg_sq": torch.zeros(1, eight_bit.BLOCK, dtype=torch.uint8)}
    part["exp_avg_sq_scale"] = torch.zeros(1, 1)
    eight_bit._write(part, "exp_avg_sq", values)
    found = eight_bit._read(part, "exp_avg_sq")[0]
    assert found[0] == 1.0
    assert found[1:3].tolist() == pytest.approx([3.25e-7] * 2)
    assert not found[3:].any()


@pytest.mark.parametrize("shape", [(), (7,), (8192,), (32, 8), (64, 72)], ids=str)
def test_small_and_odd_parameters_keep_exact_moments(shape: tuple[int, ...]):
    pairs = [made(kind, *shape) for kind in (torch.optim.AdamW, AdamW8bit)]
    for optimizer, parameter in pairs:
        assert not in_codes(parameter)
        assert moment_bytes(parameter) == 8
        steps(optimizer, parameter, 5)
    torch.testing.assert_close(pairs[1][1], pairs[0][1], rtol=1e-5, atol=1e-7)


def test_pieces_of_any_size_give_the_same_bits(monkeypatch: pytest.MonkeyPatch):
    results = []
    for size in (1 << 22, 300, 1):
        monkeypatch.setattr(eight_bit, "_CHUNK", size)
        optimizer, parameter = made(AdamW8bit, 3, 4, 1024)
        steps(optimizer, parameter, 4)
        results.append((parameter.detach(), optimizer.state[parameter]["exp_avg_sq"]))
    for weight, codes in results[1:]:
        assert torch.equal(weight, results[0][0])
        assert torch.equal(codes, results[0][1])


def test_a_snapshot_leads_back_to_the_same_bits_and_norms_are_near():
    optimizer, parameter = made(AdamW8bit, 32, 256)
    steps(optimizer, parameter, 3)
    kept, before = Snapshot.take(optimizer, "cpu"), parameter.detach().clone()
    codes = optimizer.state[parameter]["exp_avg"].clone()
    steps(optimizer, parameter, 1)
    moved = float((parameter.detach() - before).norm() / parameter.detach().norm())
    [found] = update_norms(optimizer, torch.device("cpu")).values()
    assert found == pytest.approx(moved, rel=0.02)
    assert moment(parameter, optimizer.state[parameter], "exp_avg").dtype == torch.float32
    kept.restore(optimizer)
    assert torch.equal(parameter.detach(), before)
    assert torch.equal(optimizer.state[parameter]["exp_avg"], codes)


@pytest.fixture
def wanted(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A run whose small matrices have codes too."""
    monkeypatch.setattr(eight_bit, "BLOCK", 16)
    monkeypatch.setattr(eight_bit, "SMALLEST", 256)
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
    data = tmp_path / "data"
    data.mkdir()
    optim = {"lr": 1e-3, "state": "8bit"}
    return recipe(parts, write_data(data), [stage(optim=optim, length={"samples": 16})])


class Stop(Callback):
    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        kinds = {t.dtype for state in run.optimizer.state.values() for t in state.values()}
        assert torch.uint8 in kinds
        run.stop = record.step == 3


def test_a_stopped_run_goes_on_to_the_same_bits(wanted: Recipe, tmp_path: Path):
    expected = weights(train(wanted, tmp_path / "whole"))
    with pytest.raises(InterruptedRunError):
        train(wanted, tmp_path / "stopped", Stop())
    [file] = (tmp_path / "stopped/state").glob("00-00000003/*.safetensors")
    assert {torch.uint8, torch.float32} <= {tensor.dtype for tensor in load_file(file).values()}
    for name, tensor in weights(train(wanted, tmp_path / "stopped", resume=True)).items():
        assert torch.equal(tensor, expected[name]), name


def test_shards_of_two_processes_equal_one_and_go_on_alone(wanted: Recipe, tmp_path: Path):
    alone = weights(train(wanted, tmp_path / "one"))
    both = wanted.model_copy(update={"parallel": ParallelConfig(mode="shard")})
    (tmp_path / "said").mkdir()

    def work(rank: int) -> None:
        with pytest.raises(InterruptedRunError):
            train(both, tmp_path / "two", Stop())

    assert in_two(tmp_path / "said", work) == ["done", "done"]
    found = weights(train(wanted, tmp_path / "two", resume=True))
    for name, tensor in found.items():
        # A rounded moment may fall on the other side of a border: then a weight differs by part of a step.
        torch.testing.assert_close(tensor, alone[name], rtol=0, atol=5e-4, msg=name)
        assert float((tensor.float() - alone[name].float()).abs().mean()) < 2e-5

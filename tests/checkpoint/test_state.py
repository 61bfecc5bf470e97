"""Training state on disk: round trip, and whatever crash, a usable state."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sailvit.checkpoint import state as module
from sailvit.checkpoint.state import clear_state, load_state, save_state
from sailvit.core.errors import RunError


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {
        "weight/a": torch.full((2, 3), value),
        "step/a": torch.tensor(value),
        "view": torch.arange(6.0).view(2, 3).T,
    }


def test_round_trip(tmp_path: Path):
    values = {"step": 3, "cursor": {"drawn": {"a": 1}, "pending": [["a", 0]]}, "seconds": 0.1}
    save_state(tmp_path / "run/state", {**tensors(1.5), "leaf": torch.ones(2, requires_grad=True)}, values)
    found, read = load_state(tmp_path / "run/state")
    assert read == values
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors(1.5).items())
    assert not found["leaf"].requires_grad
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["state"]


class CrashError(Exception):
    """The machine went down."""


def crash(*_: object, **__: object) -> None:
    raise CrashError


@pytest.mark.parametrize("step", ["save_file", "write_json", "first rename", "second rename", "removal"])
def test_a_crash_anywhere_leaves_a_usable_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    folder = tmp_path / "state"
    save_state(folder, tensors(1.0), {"step": 1})
    renames = [crash, None] if step == "first rename" else [None, crash]
    sound = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if (action := renames.pop(0)) is not None:
            action()
        return sound(path, target)

    if step in ("save_file", "write_json"):
        monkeypatch.setattr(module, step, crash)
    elif "rename" in step:
        monkeypatch.setattr(Path, "rename", rename)
    else:
        calls = iter([shutil.rmtree, shutil.rmtree, crash])

        def remove(*arguments: object, **keywords: object) -> None:
            next(calls)(*arguments, **keywords)

        monkeypatch.setattr(module.shutil, "rmtree", remove)
    with pytest.raises(CrashError):
        save_state(folder, tensors(2.0), {"step": 2})
    monkeypatch.undo()
    found, values = load_state(folder)
    expected = 2 if step == "removal" else 1
    assert values == {"step": expected}
    assert float(found["step/a"]) == expected
    save_state(folder, tensors(3.0), {"step": 3})
    assert load_state(folder)[1] == {"step": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_second_crash_in_a_row_keeps_the_first_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After a crash between the renames only the old folder is there; the next save must not drop it too early."""
    folder = tmp_path / "state"
    save_state(folder, tensors(1.0), {"step": 1})
    folder.rename(tmp_path / "state.old")
    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(CrashError):
        save_state(folder, tensors(2.0), {"step": 2})
    monkeypatch.undo()
    assert load_state(folder)[1] == {"step": 1}


def test_without_a_state_there_is_nothing_to_resume(tmp_path: Path):
    with pytest.raises(RunError, match="holds no training state to resume from"):
        load_state(tmp_path / "state")
    save_state(tmp_path / "state", tensors(1.0), {"step": 1})
    clear_state(tmp_path / "state")
    clear_state(tmp_path / "state")
    with pytest.raises(RunError):
        load_state(tmp_path / "state")
    assert not list(tmp_path.iterdir())

"""A run's claim on its folder: what is refused, what is kept, and what a killed start leaves."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from sailvit.core.errors import RunError
from sailvit.core.ownership import strangers
from sailvit.core.run import RunFolder
from sailvit.training.callbacks import claim as module
from sailvit.training.callbacks.claim import Wish, claimed

LOSS = '{"loss": 1}\n'


def a_run(folder: Path, *, stages: int = 0, saved: bool = False) -> Path:
    """A folder as a run leaves it."""
    manifest = {"sailvit": "0.1", "seed": 0, "name": "old", "plan": [{}, {}]}
    manifest["stages"] = [
        {"index": 0, "parts": {"tower": "stages/00-a/tower"}, "files": ["stages/00-a/tower/x.bin"]}
    ] * stages
    written = {
        "manifest.json": json.dumps(manifest),
        "recipe.yaml": "name: old\n",
        "metrics.jsonl": LOSS,
        "quarantine-3.jsonl": "",
        "tensorboard/events.out.tfevents.1.vm.2.0": "",
        "stages/00-a/tower/x.bin" if stages else "stages/00-a/tower/config.json": "{}",
    }
    if saved:
        written |= {"state/00-00000002/complete.json": "{}", "state/00-00000002/values.json": "{}"}
    for name, text in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def begin(folder: Path) -> None:
    """What a new run writes before its first step."""
    a_run(folder)
    (folder / "recipe.yaml").write_text("name: new\n")


def everything(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusal(folder: Path, wish: Wish, stages: int = 2) -> str:
    """Why a folder is not taken; it is then as it was."""
    before = everything(folder) if folder.is_dir() else None
    with pytest.raises(RunError) as error, claimed(RunFolder(folder), wish, stages):
        pass
    assert before == (everything(folder) if folder.is_dir() else None)
    return str(error.value)


@pytest.mark.parametrize("wish", ["start", "overwrite", "auto"])
@pytest.mark.parametrize(
    "name",
    ["thesis.tex", "a/b/c.txt", "recipe.yaml", "stages/x", "runs/one/manifest.json", ".hidden"],
)
def test_other_things_are_never_written_among(tmp_path: Path, wish: Wish, name: str):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    assert f"holds {name.split('/', maxsplit=1)[0]} and is no run of sailvit's" in refusal(
        tmp_path, wish
    )


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON", '{"version": 1, "shards": []}'])
def test_a_manifest_of_another_program_makes_no_run(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    for wish in ("start", "overwrite", "auto"):
        assert "holds manifest.json and is no run" in refusal(tmp_path, wish)


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "stages/00-a/tower/notes.txt", "stages/00-a/plot.png", "state/mine/x", "sub/a"],
)
@pytest.mark.parametrize("stages", [0, 1])
def test_what_was_added_to_a_run_is_named_and_kept(tmp_path: Path, name: str, stages: int):
    a_run(tmp_path, stages=stages)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    said = refusal(tmp_path, "overwrite")
    shown = {"sub/a": "sub", "state/mine/x": "state/mine"}.get(name, name)
    assert f"holds a run and {shown}, which sailvit did not write" in said
    assert "already holds a run" in refusal(tmp_path, "start")
    # Nothing was saved, so `auto` would begin anew, and does not either.
    assert shown in refusal(tmp_path, "auto")


def test_a_part_file_that_the_manifest_does_not_list_is_not_ours(tmp_path: Path):
    a_run(tmp_path, stages=1)
    assert strangers(tmp_path) == []
    (tmp_path / "stages/00-a/tower/eval.json").write_text("mine")
    assert strangers(tmp_path) == ["stages/00-a/tower/eval.json"]


def test_a_file_or_a_folder_under_one_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for wish in ("start", "overwrite", "resume", "auto"):
        assert "file is a file" in refusal(tmp_path / "file", wish)
        assert "cannot be written (Not a directory)" in refusal(tmp_path / "file/run", wish)


def test_links_out_of_a_run_are_somebodys_and_links_inside_are_ours(tmp_path: Path):
    run = a_run(tmp_path / "run")
    (tmp_path / "big").mkdir()
    (tmp_path / "big/weights").write_text("mine")
    (run / "stages/01-b").mkdir()
    (run / "stages/01-b/tower").symlink_to(run / "stages/00-a/tower")
    assert strangers(run) == []
    (run / "state").symlink_to(tmp_path / "big")
    assert strangers(run) == ["state"]
    assert "state, which sailvit did not write" in refusal(run, "overwrite")


@pytest.mark.parametrize("kept", [(), (".gitkeep",), (".gitignore", ".DS_Store")])
def test_an_empty_folder_is_taken_with_what_version_control_needs(tmp_path: Path, kept: tuple):
    for name in kept:
        (tmp_path / name).write_text("kept")
    with claimed(RunFolder(tmp_path), "overwrite", 2) as claim:
        assert claim.deed == "start"
        claim.begin()
        begin(tmp_path)
        claim.settle()
    with claimed(RunFolder(tmp_path), "overwrite", 2) as claim:
        claim.begin()
    assert everything(tmp_path) == dict.fromkeys(kept, "kept")


def failing(folder: RunFolder, real: Path, last: str) -> None:
    """A start over a run that fails after the moment `last`."""
    with suppress(ZeroDivisionError), claimed(folder, "overwrite", 2) as claim:
        if last in ("written", "settled"):
            claim.begin()
            begin(real)
        if last == "settled":
            claim.settle()
        raise ZeroDivisionError


@pytest.mark.parametrize("place", ["plain", "link", "current"])
def test_the_old_run_is_there_until_the_new_one_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    a_run(real := tmp_path / "real", stages=1, saved=True)
    given = real
    if place == "link":
        (given := tmp_path / "link").symlink_to(real)
    elif place == "current":
        monkeypatch.chdir(real)
        given = Path()
    old = everything(real)
    for last in ("taken", "written"):
        failing(RunFolder(given), real, last)
        assert everything(real) == old
    failing(RunFolder(given), real, "settled")
    assert (real / "recipe.yaml").read_text() == "name: new\n"
    assert not (real / "state").exists()
    assert not list(real.glob(".previous*"))
    assert given.is_symlink() == (place == "link")


def kill_me(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def start_and_die(folder: Path, moment: str) -> None:
    """A start over a run, in a process of its own that is killed at a moment."""
    sound, count = Path.rename, iter(range(1, 100))

    def rename(path: Path, target: Path) -> Path:
        if moment == f"rename {next(count)}":
            kill_me()
        return sound(path, target)

    Path.rename = rename  # type: ignore[method-assign]
    if moment == "removing":
        module._remove = kill_me
    with claimed(RunFolder(folder), "overwrite", 2) as claim:
        if moment == "claimed":
            kill_me()
        claim.begin()
        if moment == "begun":
            kill_me()
        if moment == "recipe":
            (folder / "recipe.yaml").write_text("x")
            kill_me()
        begin(folder)
        if moment == "written":
            kill_me()
        claim.settle()


def killed(folder: Path, moment: str) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=start_and_die, args=(folder, moment)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    "moment", ["claimed", "rename 1", "rename 3", "rename 7", "begun", "written", "removing"]
)
def test_a_killed_start_loses_neither_run(tmp_path: Path, moment: str):
    old = everything(a_run(tmp_path, saved=True))
    killed(tmp_path, moment)
    with claimed(RunFolder(tmp_path), "resume", 2) as claim:
        notes = claim.notes
    if moment == "removing":
        assert (tmp_path / "recipe.yaml").read_text() == "name: new\n"
        assert not (tmp_path / "state").exists()
        assert not list(tmp_path.glob(".previous*"))
    else:
        assert everything(tmp_path) == old
        assert bool(notes) == (moment != "claimed")


def test_a_start_killed_before_its_manifest_leaves_a_folder_that_can_be_used(tmp_path: Path):
    killed(tmp_path, "recipe")
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "run.lock"}
    with claimed(RunFolder(tmp_path), "start", 2) as claim:
        assert claim.deed == "start"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stages", "saved", "deed"),
    [(2, False, "nothing"), (1, True, "resume"), (0, True, "resume"), (0, False, "overwrite")],
)
def test_auto_does_what_the_folder_needs(tmp_path: Path, stages: int, saved: bool, deed: str):
    a_run(tmp_path, stages=stages, saved=saved)
    with claimed(RunFolder(tmp_path), "auto", 2) as claim:
        assert claim.deed == deed


@pytest.mark.parametrize("wish", ["start", "overwrite", "resume", "auto"])
def test_a_folder_that_is_being_written_is_left_to_who_does(tmp_path: Path, wish: Wish):
    a_run(tmp_path, saved=True)
    with (
        claimed(RunFolder(tmp_path), "resume", 2),
        pytest.raises(RunError, match=f"is being written by process {os.getpid()} on "),
        claimed(RunFolder(tmp_path), wish, 2),
    ):
        pass
    assert not (tmp_path / "run.lock").exists()

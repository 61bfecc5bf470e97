"""Words on screen: the version, help, a mistake in `--set`, and a run that is finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from sailvit import __version__
from sailvit.cli.app import app
from sailvit.core.errors import RecipeError
from sailvit.core.run import RunFolder, write_json
from sailvit.recipes.loader import dump_recipe, load_recipe


def test_the_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"sailvit {__version__}\n")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command below `group`, as the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = list(commands(get_command(app)))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_speaks_of_no_types(command: tuple[str, ...]):
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    assert "list[" not in result.output
    assert ("--set" in result.output) == ("PATH=VALUE" in result.output)


def test_a_mistake_in_set_names_set_and_not_the_file(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(dump_recipe(load_recipe("demo")))
    with pytest.raises(RecipeError) as told:
        load_recipe(path, ["seed=1", "stages.coarse.optim.lr=fast"])
    first, second = str(told.value).splitlines()
    assert first == f"{path} does not take --set stages.coarse.optim.lr=fast:"
    assert second.startswith("  stages.0.optim.lr: found 'fast' (str), expected a valid number")


def test_a_mistake_of_the_file_stays_the_files(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(dump_recipe(load_recipe("demo")).replace("sequence:", "sequenze:"))
    with pytest.raises(RecipeError, match=r"mine\.yaml is not a valid recipe"):
        load_recipe(path, ["seed=1"])


def finished(path: Path) -> RunFolder:
    run, stages = RunFolder(path), load_recipe("demo").stages
    done = [{"index": index, "name": stage.name} for index, stage in enumerate(stages)]
    write_json(run.manifest, {"name": "demo", "sailvit": __version__, "seed": 0, "stages": done})
    return run


def test_a_finished_run_says_so(tmp_path: Path):
    run = finished(tmp_path / "run")
    again = CliRunner().invoke(app, ["train", "demo", "--run", str(run.path)])
    assert f"{run.path} already holds a finished run; replace it" in str(again.exception)
    resumed = CliRunner().invoke(app, ["train", "demo", "--run", str(run.path), "--resume"])
    assert resumed.exit_code == 0, resumed.exception
    assert "is finished; nothing is left to do" in " ".join(resumed.output.split())

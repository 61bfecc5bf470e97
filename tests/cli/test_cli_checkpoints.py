"""Checkpoints that cannot be used: `plan` and `train` end with a sentence and exit code 1."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sailvit.cli.app import main
from sailvit.recipes.loader import dump_recipe
from tiny_parts import Parts
from tiny_runs import recipe, stage, write_data


def change(name: str, **changes: object) -> Callable[[Path], None]:
    """Damage that sets keys of a JSON file."""

    def damage(folder: Path) -> None:
        held = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**held, **changes}))

    return damage


def with_code(folder: Path) -> None:
    """The config names code of its own, which imports a package that nobody has."""
    change("config.json", model_type="foreign", auto_map={"AutoConfig": "own.Own"})(folder)
    (folder / "own.py").write_text(
        "import no_such_package\nfrom transformers import PretrainedConfig\n"
        "class Own(PretrainedConfig):\n    model_type = 'foreign'\n"
    )


DAMAGE = {
    "no tokenizer": ("language", change("tokenizer.json", model=None), "cannot load the tokenizer"),
    "preprocessor": (
        "tower",
        lambda folder: (folder / "preprocessor_config.json").write_text("{"),
        "preprocessor_config.json is not JSON",
    ),
    "shapes of the language": (
        "language",
        change("config.json", hidden_size=64),
        "cannot load the language from the folder",
    ),
    "shapes of the tower": (
        "tower",
        change("config.json", intermediate_size=40),
        "cannot load the tower from the folder",
    ),
    "code without its package": ("tower", with_code, "no_such_package"),
    "code of a language": ("language", with_code, "no_such_package"),
    "quantised": (
        "language",
        change("config.json", quantization_config={"quant_method": "fp8"}),
        "FineGrainedFP8Config",
    ),
}


@pytest.mark.parametrize("command", ["plan", "train"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_checkpoint_that_cannot_be_used_is_a_sentence(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    command: str,
):
    part, damage, message = DAMAGE[kind]
    model = {"tower": parts.tower("siglip"), "language": parts.language("llama")}
    shutil.copytree(model[part], tmp_path / "copy")
    damage(tmp_path / "copy")
    model |= {part: str(tmp_path / "copy"), "trust_remote_code": True}
    made = recipe(parts, write_data(tmp_path / "data"), [stage()], model=model)
    (tmp_path / "r.yaml").write_text(dump_recipe(made))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.setattr(sys, "argv", ["sailvit", command, "r.yaml"])
    with pytest.raises(SystemExit) as end:
        main()
    shown = "".join(capsys.readouterr())
    assert end.value.code == 1
    assert message in shown
    assert "Traceback" not in shown
    assert "has no preprocessor_config" not in shown
    assert not (tmp_path / "runs").exists()

"""Checkpoints that cannot be used: `plan` and `train` end with a sentence and exit code 1."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import GPT2Config

from sailvit.cli.app import main
from sailvit.recipes.loader import dump_recipe
from tiny_parts import Parts, save_language
from tiny_runs import recipe, stage, write_data

GPT = {"vocab_size": 320, "n_embd": 32, "n_head": 2, "n_layer": 1}


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
    code, shown = said_of(command, parts, tmp_path, monkeypatch, capsys, model=model)
    assert code == 1
    assert message in shown
    assert "has no preprocessor_config" not in shown
    assert not (tmp_path / "runs").exists()


def said_of(
    command: str,
    parts: Parts,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    **changes: object,
) -> tuple[int, str]:
    """Exit code and all output of a command about a recipe with changes."""
    made = recipe(parts, write_data(folder / "data"), [stage(length={"samples": 4})], **changes)
    (folder / "r.yaml").write_text(dump_recipe(made))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.setattr(sys, "argv", ["sailvit", command, "r.yaml"])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    shown = "".join(capsys.readouterr())
    assert "Traceback" not in shown
    return code, shown


@pytest.mark.parametrize("command", ["plan", "train"])
def test_samples_beyond_a_table_of_positions_stop_a_run_before_it_begins(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
):
    """A table that is long enough for every sample will do, however long packs are."""
    for length, expected in ((24, 1), (256, 0)):
        save_language(GPT2Config(**GPT, n_positions=length), tmp_path / f"gpt{length}")
        model = {"tower": parts.tower("siglip"), "language": str(tmp_path / f"gpt{length}")}
        asked = {"model": model, "sequence": 512}
        code, shown = said_of(command, parts, tmp_path, monkeypatch, capsys, **asked)
        assert code == expected, shown
        assert f"sequence 512 is more than the {length} positions" in shown or code
        assert ("its table of positions ends at 24" in shown) == (code == 1)
        assert ("set sequence to 24 or less" in shown) == (code == 1)


@pytest.mark.parametrize("command", ["plan", "train"])
def test_positions_beyond_what_a_rotation_was_made_for_are_remarked(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
):
    shutil.copytree(parts.language("llama"), tmp_path / "copy")
    change("config.json", max_position_embeddings=48)(tmp_path / "copy")
    model = {"tower": parts.tower("siglip"), "language": str(tmp_path / "copy")}
    code, shown = said_of(command, parts, tmp_path, monkeypatch, capsys, model=model, sequence=512)
    assert code == 0, shown
    assert "sequence 512 is more than the 48 positions that the language was made for" in shown

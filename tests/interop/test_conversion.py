"""AIMv2 towers in transformers' layout and in the original one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_original_aimv2 import original_features, weights, write
from transformers import Aimv2VisionConfig, Aimv2VisionModel
from typer.testing import CliRunner

from sailvit.cli.app import app
from sailvit.core.errors import ModelError, RunError
from sailvit.interop.conversion import convert
from tiny_parts import Parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_released_checkpoint_goes_in_and_out_bit_by_bit(tmp_path: Path, dtype: torch.dtype):
    state = {name: tensor.to(dtype) for name, tensor in weights().items()}
    source = write(tmp_path / "released", state)
    found = convert(str(source), tmp_path / "plain", "transformers")
    assert (found.found, found.tensors, found.left_out) == ("sailvit", 5 + 9 * 2, ())
    convert(str(tmp_path / "plain"), tmp_path / "again", "sailvit")
    again = load_file(tmp_path / "again/model.safetensors")
    files = [tmp_path / name / "model.safetensors" for name in ("plain", "again")]
    # The mode of any new file, as this one has.
    usual = (tmp_path / "again/config.json").stat().st_mode
    assert [path.stat().st_mode for path in files] == [usual, usual]
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert (config["model_type"], config["hidden_size"]) == ("sailvit", 32)
    assert (tmp_path / "again/preprocessor_config.json").exists()


def test_plain_transformers_gives_the_original_features(tmp_path: Path):
    source, out = write(tmp_path / "released"), tmp_path / "plain"
    assert CliRunner().invoke(app, ["convert", str(source), "--out", str(out)]).exit_code == 0
    script = (
        "import sys, torch; from transformers import AutoModel;"
        "model = AutoModel.from_pretrained(sys.argv[1]).eval();"
        "pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32);"
        "features = model(pixel_values=pixels).last_hidden_state;"
        "torch.save(features.detach(), sys.argv[2]);"
        "assert not any(name.startswith('sailvit') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, out, tmp_path / "found.pt"], check=True)
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    expected = original_features(weights(), pixels)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_a_pooling_head_is_left_out_and_said(tmp_path: Path):
    config = Aimv2VisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        image_size=16, patch_size=8, use_head=True,
    )  # fmt: skip
    Aimv2VisionModel(config).save_pretrained(tmp_path / "headed")
    given = ["convert", str(tmp_path / "headed"), "--out", str(tmp_path / "out"), "--to", "sailvit"]
    said = CliRunner().invoke(app, given).output
    assert "Left out, as features do not depend on them: head.cls_token" in said
    again = convert(str(tmp_path / "out"), tmp_path / "back", "transformers")
    assert again.tensors == 5 + 9


def test_nothing_is_overwritten_and_nothing_else_is_taken(parts: Parts, tmp_path: Path):
    source = write(tmp_path / "released")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    with pytest.raises(RunError, match="is there already"):
        convert(str(source), tmp_path / "mine", "transformers")
    with pytest.raises(ModelError, match="is a siglip_vision_model; expected an AIMv2"):
        convert(parts.tower("siglip"), tmp_path / "new", "sailvit")
    with pytest.raises(ModelError, match="cannot load the tower"):
        convert(str(tmp_path / "nowhere"), tmp_path / "new", "sailvit")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "released"]

"""Towers made of code beside their weights: only when that is allowed, exact, and saved with their code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from sailvit.core.errors import ModelError
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.folders import prove_tower
from sailvit.models.loading.parts import load_tower
from tiny_parts import PREPROCESSOR, SIDE, Parts, picture
from tiny_runs import recipe, stage, train, write_data
from tiny_sources import asked

EYE = """
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class EyeConfig(PretrainedConfig):
    model_type = "remote_eye"

    def __init__(self, hidden_size=32, patch_size=8, image_size=32, **given):
        self.hidden_size, self.patch_size, self.image_size = hidden_size, patch_size, image_size
        super().__init__(**given)


class Eye(PreTrainedModel):
    config_class = EyeConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        side = config.patch_size
        self.cut = nn.Conv2d(3, config.hidden_size, side, side)
        self.blocks = nn.ModuleList([nn.Linear(config.hidden_size, config.hidden_size) for _ in range(2)])
        self.post_init()

    def forward(self, pixel_values):
        states = self.cut(pixel_values).flatten(2).transpose(1, 2)
        for block in self.blocks:
            states = states + block(states).tanh()
        return OUTPUT


class BothConfig(PretrainedConfig):
    model_type = "remote_both"
    sub_configs = {"vision_config": EyeConfig}

    def __init__(self, vision_config=None, **given):
        given_eye = vision_config or {}
        self.vision_config = given_eye if isinstance(given_eye, EyeConfig) else EyeConfig(**given_eye)
        super().__init__(**given)


class Both(PreTrainedModel):
    config_class = BothConfig

    def __init__(self, config):
        super().__init__(config)
        self.eye = Eye(config.vision_config)
        self.words = nn.Embedding(16, 8)
        self.post_init()

    def forward(self, input_ids, pixel_values=None):
        return self.words(input_ids)
"""
OUTPUTS = {
    "states": "BaseModelOutput(last_hidden_state=states)",
    "features": '{"summary": states.mean(1), "features": states}',
    "tuple": "(states.mean(1), states)",
}


def written(folder: Path, kind: str, output: str = "states") -> Path:
    """A folder with code, random weights and a config that names the class `kind`."""
    folder.mkdir()
    # The cache of remote code goes by the name of the folder and of the file.
    (folder / "modeling_eye.py").write_text(EYE.replace("OUTPUT", OUTPUTS.get(output, output)))
    config = {
        "model_type": f"remote_{kind.lower()}",
        "architectures": [kind],
        "auto_map": {
            "AutoConfig": f"modeling_eye.{kind}Config",
            "AutoModel": f"modeling_eye.{kind}",
        },
        **({"vision_config": {"hidden_size": 32}} if kind == "Both" else {}),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from transformers import AutoConfig

        found = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        model = AutoModel.from_config(found, trust_remote_code=True)
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


def tiles() -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture(n)).permute(2, 0, 1) for n in range(2)])


@pytest.mark.parametrize(
    ("kind", "output"),
    [("Eye", "states"), ("Eye", "features"), ("Eye", "tuple"), ("Both", "states")],
)
def test_code_beside_the_weights_runs_only_where_allowed(kind: str, output: str, tmp_path: Path):
    folder = written(tmp_path / f"{kind}_{output}", kind, output)
    with pytest.raises(ModelError, match="trust_remote_code: true"):
        load_tower(asked(folder))
    tower = load_tower(asked(folder, trust_remote_code=True))[0].eval()
    assert (tower.prefix, tower.patches, tower.width) == (0, (SIDE // 8) ** 2, 32)
    saved = tmp_path / f"{kind}_{output}_saved"
    tower.model.save_pretrained(saved)
    prove_tower(tower, saved, trust_remote_code=True)
    (saved / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    again = load_tower(asked(saved, trust_remote_code=True))[0].eval()
    assert torch.equal(again(tiles()), tower(tiles()))
    assert type(AutoModel.from_pretrained(saved, trust_remote_code=True)).__name__ == "Eye"


def trained(parts: Parts, folder: Path) -> ModelBundle:
    """The model after a training of the tower in `folder`, whose run lies beside that."""
    model = {**parts.config(trust_remote_code=True).model_dump(), "tower": str(folder)}
    only = stage(train={"connector": 1.0, "tower": 1.0}, length={"samples": 4})
    sources = write_data(folder.parent)
    return train(recipe(parts, sources, [only], model=model), folder.parent / "run")


def test_a_config_that_names_no_layers_trains_to_the_end(parts: Parts, tmp_path: Path):
    folder = written(tmp_path / "Eye_trained", "Eye")
    trained(parts, folder)
    before, after = (
        load_tower(asked(place, trust_remote_code=True))[0].model.cut.weight
        for place in (folder, tmp_path / "run/stages/00-only/tower")
    )
    assert not torch.equal(before, after)


def test_patches_that_training_mode_drops_are_there_in_training(parts: Parts, tmp_path: Path):
    """As in EVA-CLIP, open_clip and timm, where fewer tokens than patches end the run."""
    dropping = "states[:, :4] if self.training else states"
    folder = written(tmp_path / "Eye_dropping", "Eye", f"BaseModelOutput({dropping})")
    tower = trained(parts, folder).mllm.tower
    assert "always runs in evaluation mode" in tower.notes[0]
    assert not tower.model.training

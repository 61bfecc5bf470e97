"""Connectors: each gives what transformers' class of its layout gives, and is saved, counted and refused alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AyaVisionConfig,
    InternVLConfig,
    Lfm2VlConfig,
    LlavaConfig,
    Mistral3Config,
)
from transformers.models.aya_vision.modeling_aya_vision import AyaVisionMultiModalProjector
from transformers.models.internvl.modeling_internvl import InternVLMultiModalProjector
from transformers.models.lfm2_vl.modeling_lfm2_vl import Lfm2VlMultiModalProjector
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from transformers.models.mistral3.modeling_mistral3 import Mistral3MultiModalProjector

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ConnectorConfig, ConnectorKind
from sailvit.models.loading.build import build
from sailvit.models.loading.folders import save_part
from sailvit.models.measures.flops import part_flops
from sailvit.models.structure.connector import (
    CONNECTORS,
    Connector,
    fresh_connector,
    pixel_unshuffle,
    read_connector,
)
from tiny_parts import Parts, mixed_records, samples

D, W, SIDE, TILES = 16, 24, 4, 2
VISION = {"model_type": "siglip_vision_model", "hidden_size": D, "patch_size": 8, "image_size": 32}
TEXT = {"model_type": "llama", "hidden_size": W, "num_attention_heads": 2, "rms_norm_eps": 1e-5}
HALVES = {"vision_config": VISION, "text_config": TEXT}
KINDS = get_args(ConnectorKind)


def features() -> torch.Tensor:
    return torch.randn(TILES, SIDE**2, D, generator=torch.Generator().manual_seed(1))


def made(kind: ConnectorKind, merge: int = 2, hidden: int = W) -> Connector:
    torch.manual_seed(2)
    connector = fresh_connector(
        kind, tower_width=D, language_width=W, merge=merge, hidden=hidden
    ).eval()
    for parameter in connector.parameters():
        nn.init.normal_(parameter, std=0.3)
    return connector


def llava(connector: Connector) -> torch.Tensor:
    theirs = LlavaMultiModalProjector(LlavaConfig(**HALVES))
    copy(connector, theirs, up="linear_1", down="linear_2")
    return theirs(features())


def aya(connector: Connector) -> torch.Tensor:
    hidden = connector.config.hidden
    config = AyaVisionConfig(
        **HALVES,
        downsample_factor=connector.config.merge,
        alignment_intermediate_size=2 * hidden,
    )
    theirs = AyaVisionMultiModalProjector(config)
    copy(connector, theirs, norm="layernorm", up="linear_1", down="linear_2")
    return theirs(features()).flatten(1, 2)


def mistral(connector: Connector) -> torch.Tensor:
    config = Mistral3Config(**HALVES, spatial_merge_size=connector.config.merge)
    theirs = Mistral3MultiModalProjector(config)
    copy(
        connector,
        theirs,
        norm="norm",
        merge="patch_merger.merging_layer",
        up="linear_1",
        down="linear_2",
    )
    sizes = torch.tensor([[32, 32]] * TILES)
    return theirs(features().flatten(0, 1), sizes).unflatten(0, (TILES, -1))


def internvl(connector: Connector) -> torch.Tensor:
    vision = {**VISION, "model_type": "internvl_vision"}
    config = InternVLConfig(
        vision_config=vision, text_config=TEXT, downsample_ratio=1 / connector.config.merge
    )
    theirs = InternVLMultiModalProjector(config)
    copy(connector, theirs, norm="layer_norm", up="linear_1", down="linear_2")
    return theirs(pixel_unshuffle(features(), connector.config.merge))


def lfm2(connector: Connector) -> torch.Tensor:
    config = Lfm2VlConfig(
        vision_config={"model_type": "siglip2_vision_model", "hidden_size": D},
        text_config={"model_type": "lfm2", "hidden_size": W, "num_attention_heads": 2},
        downsample_factor=connector.config.merge,
        projector_hidden_size=connector.config.hidden,
        projector_use_layernorm=True,
    )
    theirs = Lfm2VlMultiModalProjector(config)
    copy(connector, theirs, norm="layer_norm", up="linear_1", down="linear_2")
    return theirs(features().unflatten(1, (SIDE, SIDE))).flatten(1, 2)


def copy(ours: Connector, theirs: nn.Module, **names: str) -> None:
    """Weights of ours under the other class's names; every one must have its place."""
    theirs.load_state_dict(
        {
            f"{names[module]}.{kind}": tensor
            for name, tensor in ours.state_dict().items()
            for module, kind in [name.rsplit(".", 1)]
        }
    )


@pytest.mark.parametrize(
    ("kind", "theirs", "merge", "hidden"),
    [
        ("mlp", llava, 1, W),
        ("swiglu", aya, 1, 10),
        ("swiglu", aya, 2, 10),
        ("swiglu", aya, 4, W),
        ("norm_merge_mlp", mistral, 1, W),
        ("norm_merge_mlp", mistral, 2, W),
        ("norm_merge_mlp", mistral, 4, W),
        ("merge_mlp", internvl, 2, W),
        ("merge_mlp", lfm2, 2, 40),
        ("merge_mlp", lfm2, 4, 40),
    ],
)
@torch.no_grad()
def test_it_gives_what_the_class_of_its_layout_gives(kind, theirs, merge: int, hidden: int):
    connector = made(kind, merge, hidden)
    expected, found = theirs(connector), connector(features())
    assert found.shape == (TILES, SIDE**2 // merge**2, W)
    assert float(expected.abs().mean()) > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_every_kind_that_a_recipe_names_has_its_class():
    assert set(CONNECTORS) == set(KINDS)
    with pytest.raises(ValidationError, match="'merge_mlp', 'mlp', 'swiglu' or 'norm_merge_mlp'"):
        ConnectorConfig.model_validate({"kind": "resampler"})


def test_merge_left_out_is_1_for_llavas_mlp_and_2_for_others():
    merges = {kind: ConnectorConfig.model_validate({"kind": kind}).merge for kind in KINDS}
    assert merges == {"merge_mlp": 2, "mlp": 1, "swiglu": 2, "norm_merge_mlp": 2}
    assert ConnectorConfig(kind="mlp", merge=3).merge == 3


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_every_weight_and_its_flops_are_what_torch_counts(kind: ConnectorKind):
    connector = made(kind)
    with FlopCounterMode(display=False) as counter:
        connector(features()).square().sum().backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in connector.parameters())
    tokens = TILES * SIDE**2 // 4
    assert counter.get_total_flops() == part_flops(connector).step(tokens, trained_below=False)


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_bf16_as_autocast_gives_it(kind: ConnectorKind, recwarn: pytest.WarningsRecorder):
    connector = made(kind)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = connector(features().bfloat16())
    expected = connector(features())
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.05
    assert not [warning for warning in recwarn.list if "rms_norm" in str(warning.message)]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_with_its_kind_and_loaded_by_it(
    parts: Parts, tmp_path: Path, kind: ConnectorKind
):
    bundle = parts.build(connector=ConnectorConfig(kind=kind, merge=2, hidden=20))
    save_part(bundle, "connector", tmp_path / "connector")
    config = ConnectorConfig(kind=kind, merge=2, source=str(tmp_path / "connector"))
    again = build(parts.config(connector=config), 9).mllm
    expected = bundle.mllm.connector
    assert type(again.connector) is type(expected) is CONNECTORS[kind]
    assert again.connector.config.hidden == 20
    state = again.connector.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in expected.state_dict().items())
    [sample] = samples(bundle, mixed_records()[1:2])
    assert torch.equal(again.visual(sample.tiles), bundle.mllm.visual(sample.tiles))
    meta = build(parts.config(connector=config), weights="meta").mllm.connector
    assert meta.config.hidden == 20, "a plan counts the saved one"
    other = config.model_copy(update={"kind": "mlp" if kind != "mlp" else "swiglu"})
    for weights in ("real", "meta"):
        with pytest.raises(ModelError, match=rf"of kind {kind}, and .*set model.connector.kind"):
            build(parts.config(connector=other), 0, weights=weights)


def test_a_folder_older_than_kinds_is_the_papers_connector(tmp_path: Path):
    connector = made("merge_mlp")
    connector.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    kept = ("model_type", "tower_width", "language_width", "hidden", "merge")
    old = {**{name: config[name] for name in kept}, "architectures": ["Connector"]}
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert torch.equal(read_connector(tmp_path)(features()), connector(features()))


def test_a_kind_of_a_later_version_is_refused(tmp_path: Path):
    made("merge_mlp").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "kind": "resampler"}))
    with pytest.raises(ModelError, match="of kind 'resampler'; this version of sailvit has merge"):
        read_connector(tmp_path)

"""Towers that take patches in a row of their own order leave as themselves and in whole models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported import LINEAGE, run_card, written

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ConnectorConfig
from sailvit.inference.model import RunModel
from sailvit.interop.export import hf
from sailvit.interop.export.reach import reachable
from sailvit.interop.export.trained import Trained
from sailvit.models.loading.build import ModelBundle, build
from tiny_parts import Parts
from tiny_sources import save_source

FAMILIES = ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"]
"""Windows; a class that AutoModel does not know; positions from a table."""


def bundle_of(family: str, parts: Parts, folder: Path, **settings: object) -> ModelBundle:
    save_source(family, folder)
    return build(parts.config(**settings).model_copy(update={"tower": str(folder)}), seed=0)


@pytest.mark.parametrize("layout", ["tower", "hf"])
@pytest.mark.parametrize("family", FAMILIES)
def test_exports_give_what_the_model_gives(family: str, layout: str, parts: Parts, tmp_path: Path):
    bundle = bundle_of(family, parts, tmp_path / "source")
    assert reachable(bundle.mllm, bundle.layout) == ("tower", "hf")
    out = tmp_path / "out"
    parity = written(lambda: Trained(RunModel(bundle), torch.float32, LINEAGE), layout, out)
    assert max(error for what, error in parity.worst.items() if what != "pixels") < 1e-6
    if layout == "tower":
        assert run_card(out, tmp_path, 48, 48) == "(16, 32)"


def test_the_exported_order_is_seen_where_it_is_wrong(parts: Parts, tmp_path: Path, monkeypatch):
    real = hf._row

    def turned(tower):
        row = real(tower)
        return {**row, "tokens": row["tokens"][::-1]}

    monkeypatch.setattr(hf, "_row", turned)
    bundle = bundle_of("qwen2_5_vl", parts, tmp_path / "source")
    with pytest.raises(ModelError, match="visual differs"):
        written(lambda: Trained(RunModel(bundle), torch.float32), "hf", tmp_path / "out")


def test_classes_of_transformers_are_refused(parts: Parts, tmp_path: Path):
    bundle = bundle_of(
        "qwen2_5_vl", parts, tmp_path / "source", connector=ConnectorConfig(kind="mlp", merge=1)
    )
    with pytest.raises(ModelError, match="takes flattened patches, and the class gives pixels"):
        written(lambda: Trained(RunModel(bundle), torch.float32), "llava", tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""Towers that take patches in a row of their own order: no layout holds them, and it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported import written

from sailvit.core.errors import ModelError
from sailvit.inference.model import RunModel
from sailvit.interop.export.reach import reachable
from sailvit.interop.export.trained import Trained
from sailvit.models.loading.build import build
from tiny_parts import Parts
from tiny_sources import save_source


@pytest.mark.parametrize("layout", ["tower", "hf", "llava"])
def test_exports_are_refused_with_the_folder_that_does(parts: Parts, tmp_path: Path, layout: str):
    save_source("qwen2_5_vl", tmp_path / "source")
    bundle = build(parts.config().model_copy(update={"tower": str(tmp_path / "source")}))
    assert reachable(bundle.mllm, bundle.layout) == ()
    with pytest.raises(ModelError, match=r"is a qwen2_5_vl_vision, .* take the tower's folder"):
        written(lambda: Trained(RunModel(bundle), torch.float32), layout, tmp_path / "out")
    assert not (tmp_path / "out").exists()

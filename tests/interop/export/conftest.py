"""Copies of exports' code that transformers makes stay out of the home folder."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _modules(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        modules = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
        yield

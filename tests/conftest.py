"""Fixtures of all tests."""

from __future__ import annotations

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from small_tokenizers import CHATML, byte_tokenizer, layout_for
from transformers import PreTrainedTokenizerFast

from sailvit.core.layout import VisualLayout
from tiny_parts import Parts

# Matrices this small are slower on several threads, and the machine may be busy.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """What is kept between runs stays out of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAILVIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        # One folder for all tests of a process: what is imported from the first is not looked for
        # in a second.
        modules = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
        yield


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Tiny towers and languages of every family, saved in their real formats."""
    return Parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="session")
def chatml() -> PreTrainedTokenizerFast:
    return byte_tokenizer(CHATML)


@pytest.fixture(scope="session")
def layout(chatml) -> VisualLayout:
    return layout_for(chatml)

"""Fixtures of the data tests."""

from __future__ import annotations

import pytest
from small_tokenizers import CHATML, byte_tokenizer, layout_for
from transformers import PreTrainedTokenizerFast

from sailvit.core.layout import VisualLayout


@pytest.fixture(scope="session")
def chatml() -> PreTrainedTokenizerFast:
    return byte_tokenizer(CHATML)


@pytest.fixture(scope="session")
def layout(chatml) -> VisualLayout:
    return layout_for(chatml)

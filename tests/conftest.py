"""Fixtures of all tests."""

from __future__ import annotations

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from tiny_parts import Parts

# Matrices this small are slower on several threads, and the machine may be busy.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Tiny towers and languages of every family, saved in their real formats."""
    return Parts(tmp_path_factory.mktemp("parts"))

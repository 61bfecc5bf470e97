"""Fixtures of all tests."""

from __future__ import annotations

import gc
import multiprocessing.forkserver
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
# Garbage of the process that runs the tests is not a fork's to collect: a process group among it
# would end with threads that only that process has, and abort the fork or wait for ever.
os.register_at_fork(after_in_child=gc.freeze)


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


POOLED = (
    "sailvit.data.lengths.measuring",
    "sailvit.data.processing.processor",
    "sailvit.dataprep.curate.curating",
    "sailvit.dataprep.prepare.checking",
    "sailvit.dataprep.prepare.indexing",
    "sailvit.dataprep.prepare.preparing",
    "sailvit.dataprep.rendering",
    "sailvit.dataprep.stats.stats",
    "transformers",
)
"""Modules that process pools run or are sent objects of."""


@pytest.fixture(scope="session", autouse=True)
def _pools_start_with_all_modules():
    """The server that pools are forked from, which is started once, imports what any of them needs.

    It would import what the first one needs, and every process of the others torch and
    transformers for itself, for seconds.
    """
    real = multiprocessing.forkserver.set_forkserver_preload
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            multiprocessing.forkserver,
            "set_forkserver_preload",
            lambda names: real([*names, *POOLED]),
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk():
    """Files are written, but not forced onto the disk: no test cuts the power, and where other
    programs keep the disk busy a save would take seconds per file.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
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

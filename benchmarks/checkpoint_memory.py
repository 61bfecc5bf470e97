"""What a save takes in memory and time beside the state itself, for a language of 135 million weights that all train.

    python benchmarks/checkpoint_memory.py

The state is SmolLM2-135M's: fp32 weights and AdamW's moments, random. `streamed` is what the package does; `torch` is
torch's own asynchronous writer of the same format: a copy of the state, from which the file is made in memory. Each way
runs in a process of its own, so that peaks do not mix, and is waited for to its end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from publish import publish
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import async_save
from transformers import LlamaConfig, LlamaForCausalLM

from sailvit.checkpoint.store import Checkpoints
from sailvit.core.memory import PeakMemory


def make_state() -> dict[str, torch.Tensor]:
    """Weights and moments by name."""
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49_152,
        tie_word_embeddings=True,
    )
    weights = dict(LlamaForCausalLM(config).named_parameters())
    moments = {f"{m}/{n}": torch.randn_like(p) for n, p in weights.items() for m in ("avg", "sq")}
    return {**{name: p.detach() for name, p in weights.items()}, **moments}


def copied(store: Checkpoints, tensors: dict[str, torch.Tensor], draft: Path) -> Any:
    """How torch itself saves."""
    writer = HuggingFaceStorageWriter(str(draft), save_distributed=True)
    written: Any = async_save(tensors, storage_writer=writer, no_dist=True)
    return written.result


def measure(way: str) -> dict[str, Any]:
    """The peak above what is in memory before the save, in MiB, and the seconds until it is on the disk."""
    if way == "torch":
        Checkpoints._write = copied  # type: ignore[method-assign]
    state, memory = make_state(), PeakMemory(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as place:
        store = Checkpoints(Path(place))
        # What libraries need once is no part of a save.
        store.save((0, 1), {"warm": torch.zeros(4)}, {}, wait=True)
        memory.restart()
        before, began = memory.bytes(), time.perf_counter()
        store.save((0, 2), state, {}, wait=True)
        seconds = time.perf_counter() - began
        peak = memory.bytes() - before
    return {
        "way": way,
        "state_mib": round(sum(tensor.nbytes for tensor in state.values()) / 2**20),
        "peak_above_mib": round(peak / 2**20),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Measure both ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    rows = []
    for way in ("torch", "streamed"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            rows.append(alone.submit(measure, way).result())
    command = " ".join(["python benchmarks/checkpoint_memory.py", *sys.argv[1:]])
    publish("checkpoint_memory", command, {"rows": rows})


if __name__ == "__main__":
    main()

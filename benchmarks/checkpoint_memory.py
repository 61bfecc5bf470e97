"""What saves cost in memory: the peak of a run with a language of 135 million weights, with them and without.

    python benchmarks/checkpoint_memory.py

The language has SmolLM2-135M's shape and random weights, tower and data are the demo's, and all three parts train in
fp32. `streamed` is what the package does; `torch` saves a copy of the state with torch's own asynchronous writer. Each
way runs in a process of its own, so that peaks do not mix; what libraries and weights take before the first step is in
all of them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from publish import publish
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import async_save
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sailvit.checkpoint.store import Checkpoints
from sailvit.core.memory import PeakMemory
from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder
from sailvit.models.build import resolve_source
from sailvit.models.quiet import quiet_libraries
from sailvit.recipes.loader import load_recipe
from sailvit.training.hooks import Hook
from sailvit.training.job import StageJob, StepRecord
from sailvit.training.trainer import Trainer

WARM = 2
"""Steps before peaks count: the moments are made in the first."""


class Peaks(Hook):
    """The peak of the steps, saves between them included, and that of the stage's end, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self._memory = PeakMemory(device)
        self.steps = self.end = 0

    def step_ended(self, job: StageJob, record: StepRecord) -> None:
        """Count from the first step after the warm ones."""
        if record.step == WARM:
            self._memory.restart()
        elif record.step > WARM:
            self.steps = self._memory.bytes()

    def stage_ended(self, job: StageJob) -> None:
        """From here on it is the stage's end that is measured: its proof, its state and its parts."""
        self._memory.restart()

    def done(self) -> None:
        """The run is over."""
        self.end = self._memory.bytes()


def save_language(folder: Path) -> None:
    """A random Llama of SmolLM2-135M's shape, with the demo's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_source("sailvit:world/language"))
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49_152,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def copied(store: Checkpoints, tensors: dict[str, torch.Tensor], draft: Path) -> Any:
    """How torch itself would save: a copy of all tensors, made into files in the background."""
    writer = HuggingFaceStorageWriter(str(draft), save_distributed=True)
    written: Any = async_save(tensors, storage_writer=writer, no_dist=True)
    return written.result


def short_recipe(language: Path, every: int | None, steps: int) -> Recipe:
    """One stage of the demo in which everything trains, a few packs long."""
    made = load_recipe("demo", [f"model.language={language}", "sequence=64"])
    stage = made.stages[2]
    length = stage.length.model_copy(update={"samples": None, "tokens": steps * 50})
    return made.model_copy(
        update={
            "stages": [stage.model_copy(update={"length": length})],
            "precision": "fp32",
            "proof_steps": WARM,
            "checkpoint": made.checkpoint.model_copy(update={"every": every, "minutes": None}),
            "watch": made.watch.model_copy(update={"every": None, "report": ()}),
            "workers": 0,
        }
    )


def measure(language: str, way: str, steps: int) -> dict[str, Any]:
    """Peaks in MiB."""
    quiet_libraries()
    if way == "torch":
        Checkpoints._write = copied  # type: ignore[method-assign]
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as place:
        peaks = Peaks(device)
        recipe = short_recipe(Path(language), None if way == "no saves" else 3, steps)
        model = Trainer(recipe, RunFolder(Path(place) / "run"), hooks=[peaks], device=device).run()
        peaks.done()
        state = sum(p.numel() for p in model.mllm.parameters()) * 12
    return {
        "way": way,
        "state_mib": round(state / 2**20),
        "steps_peak_mib": round(peaks.steps / 2**20),
        "stage_end_peak_mib": round(peaks.end / 2**20),
    }


def main() -> None:
    """Measure a run without saves, and both ways to save at every third step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=9)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        save_language(Path(place) / "language")
        for way in ("no saves", "torch", "streamed"):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                found = alone.submit(measure, str(Path(place) / "language"), way, given.steps)
                rows.append(found.result())
    command = " ".join(["python benchmarks/checkpoint_memory.py", *sys.argv[1:]])
    publish("checkpoint_memory", command, {"rows": rows})


if __name__ == "__main__":
    main()

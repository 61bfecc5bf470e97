"""The recipe of target training: connector warm-up, multi-task, instruction, for a multimodal
model whose tower was refined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from sailvit.api.recipe_sources import caption_sources, source_line
from sailvit.core.errors import RecipeError
from sailvit.core.formatting import counted, short
from sailvit.core.recipe import Recipe, SourceConfig
from sailvit.distributed.processes import my_device
from sailvit.models.measures.peak import device_peak
from sailvit.preflight.plan import Plan, plan
from sailvit.recipes.dialect import read_yaml, write_line
from sailvit.recipes.loader import checked_recipe
from sailvit.training.stages.precision import settled

SHARES = (0.1, 0.5, 0.4)
"""Shares of the samples of the three stages: about those of CoMP's open data (arXiv 2503.18931),
0.6 M, 4.6 M and 3.2 M."""
STEP_SAMPLES = (2048, 512, 512)
"""Samples per step of the stages: as published, and for the last two those of the refinement's
stages in which more than the connector trains."""
STEPS = 50
"""Fewest steps of a stage to aim at, so that warm-up and decay have an effect."""
PACK = 8192
"""Tokens per pack, as published, unless the language or a small budget demands fewer."""
SEARCH_STEPS = 1000
"""Steps from which on the first stage searches for its rate, as the report's does."""
PROBE = 1_000_000
"""Samples of the plan from which a budget in hours is turned into samples."""

TEXT = Template("""\
# Target training, written by `sailvit equip`: $how
# `sailvit plan` shows what it would do and cost; docs/target.md explains the stages. The same recipe with the base
# tower (`--set model.tower=BASE`) is the comparison that shows what refining was worth.

name: target

model:
$model

sequence: $sequence    # tokens per pack: $why_sequence

sources:$why_sources
$sources

stages:
  - name: align                 # basic multimodal pre-training: the connector alone
    train: {connector: 1}
    data: [$captions]
    optim: {lr: 2e-4}           # the published rate$search
    length: {samples: $samples_align}    # a tenth of $total
    global_batch: $batch_align    # packs per step: about $step_align; 2,048 are published

  - name: multitask             # multi-task pre-training: all parameters
    train: {connector: 1, tower: 1, language: 1}
    data: [$multitask]
    optim: {lr: 2e-5}           # no rate is published; this is the refinement's second
    length: {samples: $samples_multitask}    # half
    global_batch: $batch_multitask    # packs per step: about $step_multitask

  - name: instruct              # instruction tuning
    train: {connector: 1, tower: 1, language: 1}
    data: [$instruct]
    optim: {lr: 1e-5}           # no rate is published; this is the refinement's third
    length: {samples: $samples_instruct}    # the rest
    global_batch: $batch_instruct    # packs per step: about $step_instruct
""")
"""The recipe with its comments; every choice has a name."""

OPEN_DATA = """\
  align: {format: llava, path: data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json}
  multitask: {format: parquet, path: 'data/LLaVA-ReCap-558K/data/*.parquet'}
  instruct: {format: parquet, path: 'data/LLaVA-NeXT-Data/data/*.parquet'}"""
"""Sources where the user names none: open sets, as docs/target.md fetches them."""
_STAGES = ("align", "multitask", "instruct")


@dataclass(frozen=True)
class Budget:
    """How long target training may take: one of the two."""

    samples: int | None = None
    """Samples of all stages together."""
    gpu_hours: float | None = None
    """Hours of one device."""
    tflops: float | None = None
    """Peak of that device in TFLOP/s; None: this machine's, measured."""
    mfu: float = 0.4
    """Share of the peak that training reaches."""

    def __post_init__(self) -> None:
        if (self.samples is None) == (self.gpu_hours is None):
            raise RecipeError(
                "target training needs one budget; give --samples N or --gpu-hours H, not both"
            )


@dataclass(frozen=True)
class Target:
    """What target training starts from."""

    settings: Mapping[str, Any]
    """Settings of the model section, besides the parts' folders."""
    kept: bool
    """Whether the connector's folder is there to start from."""
    sources: Mapping[str, SourceConfig] | None
    """What to train on; None: open sets, to be fetched."""


def target_recipe(target: Target, budget: Budget, folder: Path) -> str:
    """The text of a recipe of target training that starts from the parts in `folder`, to be
    written into that folder.

    Raises:
        RecipeError: the budget is too small for a sample per stage.
    """
    first = _planned(_written(target, PROBE, PACK, {}), folder)
    samples = budget.samples or _affordable(budget, first, _precision(target, folder))
    if samples < 10:
        raise RecipeError(
            f"the budget is {counted(samples, 'sample')}; expected at least 10: raise --samples or"
            " --gpu-hours"
        )
    means = {stage.name: stage.sample.tokens for stage in first.stages}
    return _written(target, samples, _sequence(first, means, samples), means)


def _planned(text: str, folder: Path) -> Plan:
    made = plan(_parsed(text, folder))
    if len(made.stages) < len(_STAGES):
        told = "".join(f"\n  {problem}" for problem in made.problems)
        raise RecipeError(f"the equipped model cannot be planned:{told}")
    return made


def _parsed(text: str, folder: Path) -> Recipe:
    return checked_recipe(read_yaml(text, "the new recipe"), "the new recipe", folder)


def _precision(target: Target, folder: Path) -> Any:
    return settled(_parsed(_written(target, PROBE, PACK, {}), folder), my_device()).precision


def _affordable(budget: Budget, probe: Plan, precision: Any) -> int:
    """Samples that the hours pay for, to two digits."""
    assert budget.gpu_hours is not None
    assert probe.flops is not None
    peak = budget.tflops * 1e12 if budget.tflops else device_peak(my_device(), precision)
    found = budget.gpu_hours * 3600 * peak * budget.mfu / probe.flops * PROBE
    digits = max(0, math.floor(math.log10(max(found, 1))) - 1)
    return int(found // 10**digits * 10**digits)


def _sequence(probe: Plan, means: Mapping[str, float], samples: int) -> int:
    """Tokens per pack: the published number, or as many as a step of a small budget has, if that
    leaves room for the largest image and lets the packer choose among four samples.
    """
    step = min(_step_samples(samples, index) * means[name] for index, name in enumerate(_STAGES))
    least = max(4 * max(means.values()), 2 * probe.most_tiles * probe.tokens_per_tile)
    wanted = max(step, least, 64)
    return min(PACK, 1 << math.ceil(math.log2(wanted)))


def _step_samples(samples: int, index: int) -> int:
    """Samples per step of a stage."""
    return max(1, min(STEP_SAMPLES[index], int(samples * SHARES[index]) // STEPS))


def _written(target: Target, samples: int, sequence: int, means: Mapping[str, float]) -> str:
    """The text for so many samples in all; without `means` its batches are placeholders."""
    values = {"sequence": str(sequence), "total": short(samples), **_data(target)}
    for index, name in enumerate(_STAGES):
        wanted = _step_samples(samples, index)
        mean = means.get(name, float(sequence))
        batch = max(1, round(wanted * mean / sequence))
        values[f"samples_{name}"] = f"{max(1, int(samples * SHARES[index])):_}"
        values[f"batch_{name}"] = str(batch)
        values[f"step_{name}"] = counted(max(1, round(batch * sequence / mean)), "sample")
    steps = samples * SHARES[0] / _step_samples(samples, 0)
    searched = "\n    schedule: {name: adalrs}    # and the search that found three times as much"
    return TEXT.substitute(
        values,
        how="the tower is new"
        + (", the connector kept." if target.kept else " and so is the connector."),
        model=_model_section(target),
        why_sequence="the published length"
        if sequence == PACK
        else "what a step of this budget fills",
        search=searched if steps >= SEARCH_STEPS else "",
    )


def _data(target: Target) -> dict[str, str]:
    """Sources, and which of them each stage has."""
    if target.sources is None:
        return {
            "sources": OPEN_DATA,
            "why_sources": "    # open sets; docs/target.md has the commands that fetch them",
            "captions": "align",
            "multitask": "multitask, instruct",
            "instruct": "instruct",
        }
    everything = _listed(target.sources)
    return {
        "sources": "\n".join(source_line(*each) for each in target.sources.items()),
        "why_sources": "    # formats as detected from the files",
        "captions": _listed(caption_sources(target.sources)),
        "multitask": everything,
        "instruct": _listed(_questions(target.sources)),
    }


def _listed(names: Iterable[str]) -> str:
    return write_line(list(names))[1:-1]


def _questions(sources: Mapping[str, SourceConfig]) -> list[str]:
    """Names of the sources that are more than captions; all where there are none."""
    captions = set(caption_sources(sources))
    return [name for name in sources if name not in captions] or list(sources)


def _model_section(target: Target) -> str:
    connector = dict(target.settings["connector"])
    if target.kept:
        connector["source"] = "connector"
    section = {**target.settings, "connector": connector}
    places = {"tower": "tower", "language": "language"}
    # Paths start at the recipe's folder.
    return "\n".join(
        f"  {key}: {write_line(value)}" for key, value in (places | section).items() if value != {}
    )

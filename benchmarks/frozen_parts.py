"""What freezing saves: seconds per sample and optimizer state of the demo's three stages, on the same samples.

python benchmarks/frozen_parts.py
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import torch
from publish import publish

from sailvit.core.recipe import Recipe
from sailvit.core.run import RunFolder
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.recipes.loader import load_recipe
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from sailvit.training.trainer import Trainer

SAMPLES = 2000
"""Per stage; the first ten steps are left out."""


class Watch(Callback):
    """Collects the time per sample and what the optimizer holds."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self._times: list[float] = []

    def step_ended(self, job: StageRun, record: StepRecord) -> None:
        """Note the step."""
        if record.step > 10:
            self._times.append(
                (record.seconds - record.wait) * record.samples_per_s**-1 / record.seconds
            )

    def stage_ended(self, job: StageRun) -> None:
        """Sum the stage up."""
        held = sum(t.numel() for state in job.optimizer.state.values() for t in state.values())
        self.stages[job.stage.name] = {
            "ms_per_sample": round(1e3 * statistics.median(self._times), 3),
            "optimizer_numbers": held,
            "parameters_with_graph": sum(
                p.numel() for p in job.model.parameters() if p.requires_grad
            ),
        }
        self._times = []


def main() -> None:
    """Train the demo's stages, each on the same mixture and the next-token objective."""
    quiet_libraries()
    recipe = load_recipe("demo")
    stages = [
        stage.model_copy(
            update={
                "data": ["detailed"],
                "objectives": {"next_token": 1.0},
                "length": stage.length.model_copy(update={"samples": SAMPLES}),
            }
        )
        for stage in recipe.stages
    ]
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            Recipe(**{**dict(recipe), "stages": stages}), RunFolder(Path(folder)), callbacks=[watch]
        ).run()
    last = watch.stages[recipe.stages[-1].name]["ms_per_sample"]
    for name, values in watch.stages.items():
        values["speed_of_last_stage"] = round(last / values["ms_per_sample"], 2)
        print(name, values)
    publish(
        "frozen_parts",
        "python benchmarks/frozen_parts.py",
        {"samples": SAMPLES, "stages": watch.stages},
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()

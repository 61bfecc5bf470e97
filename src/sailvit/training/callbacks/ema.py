"""The running mean of the tower's weights over a stage's steps, saved beside the tower."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sailvit.distributed.sharding import local
from sailvit.models.loading.folders import save_part
from sailvit.training.callbacks.state import trained_names
from sailvit.training.output.exports import problem_of
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord

FOLDER = "tower-ema"
"""Folder of the mean, beside those of the stage's parts."""
_YOUNG = 10
"""The decay of step n is (1 + n) / (this + n) at most: else a short stage's mean would hardly
leave the weights that it began with (as in timm's and TensorFlow's)."""


class EmaCallback(Callback):
    """Keeps the mean of the tower's weights in stages that ask for one with `ema`.

    It takes 4 bytes per parameter of the tower that trains, sharded as they are, and as much
    again during a trial of a learning rate. Training gives the same bits with it as without.
    """

    def __init__(self, announce: Callable[[dict[str, Any]], None] = lambda line: None) -> None:
        self._announce = announce
        self._means: dict[torch.Tensor, torch.Tensor] = {}
        self._steps = 0
        self._back: dict[torch.Tensor, torch.Tensor] = {}
        self._back_steps = 0

    def stage_started(self, run: StageRun) -> None:
        """Begin with the weights as they are, unless a resumed stage has its mean already."""
        if run.stage.ema is None:
            self._means = self._back = {}
        elif not run.step or not self._means:
            tower = run.model.part("tower").parameters()
            self._means = {p: p.detach().clone() for p in tower if p.requires_grad}
            self._steps, self._back = 0, {}

    @torch.no_grad()
    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Move the mean towards the new weights."""
        if run.stage.ema is None or record.skipped:
            return
        self._steps += 1
        decay = min(run.stage.ema, (1 + self._steps) / (_YOUNG + self._steps))
        for parameter, mean in self._means.items():
            local(mean).lerp_(local(parameter.detach()), 1 - decay)

    def stage_ended(self, run: StageRun) -> None:
        """Save the mean as a tower; a stage that was stopped goes on later."""
        if not self._means or run.stop:
            return
        # Not a reason to lose a stage: its own state and parts are saved after this.
        if told := problem_of(lambda: self._save(run)):
            self._announce({"note": f"the mean of the tower's weights was not saved: {told}"})

    def trial_began(self, run: StageRun) -> None:
        """Keep the mean as it is, beside it or on the CPU, as the search keeps the weights."""
        search = run.stage.schedule.search
        spare = search is not None and search.keep == "cpu"
        self._back = {
            p: mean.to("cpu" if spare else mean.device, copy=True)
            for p, mean in self._means.items()
        }
        self._back_steps = self._steps

    def trial_ended(self, run: StageRun, *, taken_back: bool) -> None:
        """Forget the trial's steps where the weights did."""
        del run
        if taken_back and self._back:
            for parameter, kept in self._back.items():
                local(self._means[parameter]).copy_(local(kept))
            self._steps = self._back_steps
        self._back = {}

    def state_dict(self) -> dict[str, Any]:
        """Steps in the mean and in the one to return to; empty without one."""
        return {"steps": self._steps, "back_steps": self._back_steps} if self._means else {}

    def state_tensors(self, run: StageRun) -> dict[str, torch.Tensor]:
        """The mean, and the one to return to, by the parameters' names."""
        names = trained_names(run)
        held = (("mean", self._means), ("back", self._back))
        return {f"{key}/{names[p]}": mean for key, means in held for p, mean in means.items()}

    def load_state_dict(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Go on with the mean of before."""
        held: dict[str, dict[torch.Tensor, torch.Tensor]] = {"mean": {}, "back": {}}
        owners = {name: parameter for parameter, name in trained_names(run).items()}
        for name, tensor in tensors.items():
            key, _, owner = name.partition("/")
            held[key][owners[owner]] = tensor
        self._means, self._back = held["mean"], held["back"]
        # States of older versions kept none to return to.
        self._steps, self._back_steps = state["steps"], state.get("back_steps", 0)

    def rolled_back(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """The mean goes back with the weights."""
        self.load_state_dict(run, state, tensors)

    def _save(self, run: StageRun) -> None:
        """Save the tower with the mean in the place of its weights, then put these back."""
        target = run.folder.stage(run.index, run.stage.name) / FOLDER
        remote = run.recipe.model.trust_remote_code
        self._exchange()
        try:
            save_part(run.bundle, "tower", target, trust_remote_code=remote)
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Exchange weights and means, one tensor at a time."""
        for parameter, mean in self._means.items():
            kept = local(mean).clone()
            local(mean).copy_(local(parameter.detach()))
            local(parameter.detach()).copy_(kept)

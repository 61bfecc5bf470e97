"""TRL's SFTTrainer and transformers' Trainer as contenders, each at its documented best for images on a CPU.

- bf16 autocast over fp32 weights, fused AdamW, loader workers, samples grouped by length: both.
- TRL: loss on assistant turns by its own collator; it refuses packing and padding-free training for images.
- transformers: TRL's collator too, as it has none of its own for images; its loss scores every position.
"""

from __future__ import annotations

import shutil
from typing import Any

import torch
from datasets import Dataset, Image, Sequence
from transformers import Trainer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from peers.data import messages
from peers.internvl import PARTS
from peers.model import load_whole
from peers.watching import Outcome, Task, Watch, scratch


def run_trl(task: Task) -> Outcome:
    """Train the stage with TRL."""
    model, processor = _prepared(task)
    watch = Watch(task)
    settings = SFTConfig(**_settings(task), assistant_only_loss=True, max_length=None)
    trainer = _watched(SFTTrainer)(
        model=model,
        args=settings,
        train_dataset=_dataset(task),
        processing_class=processor,
        callbacks=[_Clock(watch)],
    )
    trainer.train()
    return watch.outcome()


def run_trainer(task: Task) -> Outcome:
    """Train the stage with transformers alone."""
    model, processor = _prepared(task)
    watch = Watch(task)
    trainer = _watched(Trainer)(
        model=model,
        args=TrainingArguments(**_settings(task)),
        train_dataset=_dataset(task),
        data_collator=DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True),
        callbacks=[_Clock(watch)],
    )
    trainer.train()
    return watch.outcome()


def first_loss(task: Task) -> tuple[float, int]:
    """Mean loss of the first conversation in fp32, and its tokens with loss."""
    model, processor = load_whole(task.model)
    collator = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)
    batch = collator([dict(_dataset(task)[0])])
    with torch.no_grad():
        return float(model(**batch).loss), int((batch["labels"] != -100).sum())


def _prepared(task: Task) -> tuple[Any, Any]:
    torch.set_num_threads(task.threads)
    shutil.rmtree(scratch(task, "peer"), ignore_errors=True)
    model, processor = load_whole(task.model)
    model.requires_grad_(requires_grad=False)
    for part in task.trains:
        getattr(model.model, PARTS[part]).requires_grad_(requires_grad=True)
    return model, processor


def _settings(task: Task) -> dict[str, Any]:
    return {
        "output_dir": str(scratch(task, "peer")),
        "max_steps": task.steps,
        "per_device_train_batch_size": task.micro,
        "gradient_accumulation_steps": task.samples // task.micro,
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "adam_beta2": 0.95,
        "bf16": True,
        "use_cpu": True,
        "gradient_checkpointing": False,  # TRL turns it on otherwise
        "dataloader_num_workers": task.workers,
        "dataloader_prefetch_factor": 2 * task.samples // task.micro,
        "dataloader_pin_memory": False,
        "train_sampling_strategy": "group_by_length",
        # The column of lengths would be removed before samples are grouped by it.
        "remove_unused_columns": False,
        "torch_compile": task.compile,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": task.steps,
        "disable_tqdm": True,
    }


def _dataset(task: Task) -> Dataset:
    rows = messages(task.files)
    # Characters and visual tokens tell lengths apart as well as tokens would.
    for row in rows:
        row["length"] = sum(len(turn["content"]) for turn in row["messages"]) // 6 + 64 * len(
            row["images"]
        )
    return Dataset.from_list(rows).cast_column("images", Sequence(Image()))


def _watched(trainer: type[Trainer]) -> type[Any]:
    """The trainer, counting samples, answers and losses of each step; that costs microseconds."""

    class Watched(trainer):  # type: ignore[misc, valid-type]
        """A trainer that counts."""

        seen = (0, 0, 0.0)

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            """Count one micro-batch."""
            answers = int((inputs["labels"] != -100).sum())
            count = len(inputs["labels"])
            loss = super().training_step(model, inputs, num_items_in_batch)
            self.seen = (self.seen[0] + count, self.seen[1] + answers, self.seen[2] + float(loss))
            self.state.seen = self.seen
            return loss

    return Watched


class _Clock(TrainerCallback):
    """Hands steps to the watch."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._before = (0, 0, 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the step."""
        del args, control
        samples, answers, loss = (
            now - then for now, then in zip(state.seen, self._before, strict=True)
        )
        self._before = state.seen
        self._watch.step(samples, answers, loss)

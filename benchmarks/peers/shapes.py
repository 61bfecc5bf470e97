"""The transformers Trainer on a recipe's shapes: the same parts with random weights, and the same samples, padded."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from peers.internvl import PARTS
from sailvit.core.batch import IGNORED
from sailvit.core.memory import PeakMemory
from sailvit.core.recipe import Recipe
from sailvit.core.records import Sample
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.loading.configs import read_config, stand_in_tokenizer
from sailvit.models.measures.flops import flops_model
from sailvit.preflight.bench_data import BenchData, gather
from sailvit.training.optim.optimizer import freeze


@dataclasses.dataclass(frozen=True)
class Window:
    """How a stage is measured."""

    steps: int
    """Steady steps."""
    warmup: int
    """Steps before them."""
    samples: int
    """Samples of a step."""
    micro: int
    """Samples of a forward pass."""
    workers: int
    """Loader processes."""


def trainer_speed(
    recipe: Recipe, index: int, window: Window, device: torch.device, folder: Path
) -> dict[str, Any]:
    """Answers and useful FLOP/s of the Trainer in stage `index`, and its peak memory."""
    drawn = build(recipe.model, weights="meta")
    tokenizer = drawn.tokenizer or stand_in_tokenizer(recipe.model.placeholder)
    layout = dataclasses.replace(
        drawn.layout, placeholder_id=tokenizer.convert_tokens_to_ids(recipe.model.placeholder)
    )
    stage = recipe.stages[index]
    only = recipe.model_copy(update={"stages": [stage]})
    data = gather(only, ModelBundle(drawn.mllm, tokenizer, layout, {}))
    freeze(drawn.mllm, stage)
    memory, watch = PeakMemory(device), _Watch(device, window)
    memory.restart()
    samples = Samples(data, list(stage.data))
    trainer = _Grouped(
        model=_model(recipe, layout.placeholder_id, list(stage.train), device),
        args=_arguments(window, device, folder),
        train_dataset=samples,
        data_collator=Padded(
            drawn.mllm.tower.preprocessing.mean, drawn.mllm.tower.preprocessing.std
        ),
        callbacks=[watch],
    )
    trainer.watch = watch
    trainer.train()
    work = flops_model(drawn.mllm).step(**watch.useful)
    return {
        "samples_per_s": watch.samples / watch.seconds,
        "answer_tokens_per_s": watch.useful["answer_tokens"] / watch.seconds,
        "flops_per_s": work / watch.seconds,
        "padding": 1 - watch.useful["tokens"] / max(watch.padded, 1),
        "peak_bytes": memory.bytes(),
    }


class Samples(Dataset[Sample]):
    """The samples of a stage's sources, one after the other."""

    def __init__(self, data: BenchData, names: Sequence[str]) -> None:
        self._data = data
        self._places = [
            (name, position) for name in names for position in range(len(data.sources[name]))
        ]
        self.lengths = [
            int(data.costs[name].at(_one(position))[0][0]) for name, position in self._places
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        name, position = self._places[index]
        return self._data.processor(name, self._data.sources[name][position])


class Padded:
    """Samples as a batch of their longest, with normalised pixels: what a model of transformers takes."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._mean, self._std = (
            torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (mean, std)
        )

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Token ids, labels and mask int64[B, T], and pixels float[I, C, H, W]."""
        # transformers shifts labels itself; ours are shifted already.
        labels = [torch.cat([torch.tensor([IGNORED]), sample.labels[:-1]]) for sample in samples]
        pixels = torch.cat([sample.tiles for sample in samples])
        return {
            "input_ids": pad_sequence([sample.tokens for sample in samples], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad_sequence(
                [torch.ones_like(s.tokens) for s in samples], batch_first=True
            ),
            "pixel_values": (pixels - self._mean) / self._std,
        }


class _Watch(TrainerCallback):
    """Times the steady steps and counts what was useful in them."""

    def __init__(self, device: torch.device, window: Window) -> None:
        self._device, self._window = device, window
        self._begin = 0.0
        self.seconds = 0.0
        self.samples = self.padded = 0
        self.useful = {"tiles": 0, "segment_squares": 0, "tokens": 0, "answer_tokens": 0}

    def took(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Count a micro-batch."""
        lengths = inputs["attention_mask"].sum(dim=1)
        self.samples += len(lengths)
        self.padded += inputs["attention_mask"].numel()
        self.useful["tiles"] += len(inputs["pixel_values"])
        self.useful["segment_squares"] += int(lengths.square().sum())
        self.useful["tokens"] += int(lengths.sum())
        self.useful["answer_tokens"] += int((inputs["labels"] != IGNORED).sum())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin when warm, and note the time after every step from then on."""
        del args, control
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        if state.global_step == self._window.warmup:
            self._begin = time.perf_counter()
            self.samples = self.padded = 0
            self.useful = dict.fromkeys(self.useful, 0)
        self.seconds = time.perf_counter() - self._begin


class _Grouped(Trainer):
    """The Trainer with samples grouped by length, their lengths being known, as its option would find out."""

    watch: _Watch

    def _get_train_sampler(self, train_dataset: Samples | None = None) -> Sampler[int]:
        dataset = train_dataset or self.train_dataset
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(size, dataset=dataset, lengths=dataset.lengths)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Count the micro-batch, and train on it."""
        self.watch.took(inputs)
        return super().training_step(model, inputs, num_items_in_batch)


def _model(recipe: Recipe, placeholder_id: int, trains: Iterable[str], device: torch.device) -> Any:
    vision = read_config(recipe.model, "tower")
    text = read_config(recipe.model, "language")
    config = InternVLConfig(
        vision_config=getattr(vision, "vision_config", vision),
        text_config=text,
        image_token_id=placeholder_id,
        downsample_ratio=1 / recipe.model.connector.merge,
        vision_feature_select_strategy="full",
        tie_word_embeddings=text.tie_word_embeddings,
    )
    with device:
        model = InternVLForConditionalGeneration._from_config(
            config, attn_implementation="sdpa"
        ).float()
    model.requires_grad_(requires_grad=False)
    for part in trains:
        getattr(model.model, PARTS[part]).requires_grad_(requires_grad=True)
    if "language" in trains:
        model.lm_head.requires_grad_(requires_grad=True)
    return model


def _arguments(window: Window, device: torch.device, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=window.warmup + window.steps,
        per_device_train_batch_size=window.micro,
        gradient_accumulation_steps=max(1, window.samples // window.micro),
        learning_rate=1e-5,
        optim="adamw_torch_fused",
        bf16=True,
        use_cpu=device.type == "cpu",
        dataloader_num_workers=window.workers,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        logging_steps=window.warmup + window.steps,
        disable_tqdm=True,
    )


def _one(position: int) -> Any:
    import numpy as np

    return np.array([position])

"""The run folder: where everything a run writes has its place, and how its files are read back.

recipe.yaml      the resolved recipe
manifest.json    lineage: parents, data fingerprints, versions, seeds, stages
metrics.jsonl    one line per optimizer step
proofs.jsonl     one line per proof of training
events.jsonl     one line per decision of a learning-rate search
monitoring.jsonl one line per monitoring point: norms, drift, perplexity and affinity
monitoring.safetensors  what the points are measured on: tiles, texts, and the base tower's features
quarantine.jsonl one line per record left out because it could not be read
answers/         predictions and scores of the demo's questions, as `sailvit evaluate` writes them
stages/00-name/  tower/, connector/ and language/ as Hugging Face folders, and model.json: how they join
state/           training state, to resume from
evaluation.json, affinity.json, report.html, summary.json, picture.png when made
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sailvit.core.atomic import whole_file
from sailvit.core.errors import RunError

MODEL_FILE = "model.json"
"""Lies beside the three parts of a model and says how they join: what their own configs do
not."""


@dataclass(frozen=True)
class RunFolder:
    """Paths and readers of one run."""

    path: Path
    """The folder itself."""

    @property
    def recipe(self) -> Path:
        """The resolved recipe, which re-runs to the same result."""
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """Lineage of the run."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per step."""
        return self.path / "metrics.jsonl"

    @property
    def proofs(self) -> Path:
        """One JSON line per proof of training."""
        return self.path / "proofs.jsonl"

    @property
    def events(self) -> Path:
        """One JSON line per thing that a learning-rate search or a recovery did."""
        return self.path / "events.jsonl"

    @property
    def monitoring(self) -> Path:
        """One JSON line per monitoring point: norms, drift, perplexity and affinity."""
        return self.path / "monitoring.jsonl"

    @property
    def monitoring_data(self) -> Path:
        """What the points are measured on: tiles, texts, and the base tower's features of the
        tiles.
        """
        return self.path / "monitoring.safetensors"

    @property
    def logs(self) -> tuple[Path, ...]:
        """The files whose lines each belong to a step of a stage: a resumed run drops the lines
        of the steps that it repeats.
        """
        return self.metrics, self.proofs, self.events, self.monitoring

    @property
    def state(self) -> Path:
        """Training state to resume from."""
        return self.path / "state"

    @property
    def quarantine(self) -> Path:
        """One JSON line per record that could not be read and was left out of its pack."""
        return self.path / "quarantine.jsonl"

    @property
    def quarantines(self) -> list[Path]:
        """The quarantine's files: `quarantine.jsonl` of rank 0 and `quarantine-<rank>.jsonl` of
        every other rank that has one.
        """
        return sorted(self.path.glob(f"{self.quarantine.stem}*{self.quarantine.suffix}"))

    @property
    def evaluation(self) -> Path:
        """Held-out scores per model and task, with sample predictions."""
        return self.path / "evaluation.json"

    @property
    def answers(self) -> Path:
        """What `sailvit evaluate` writes, of the demo's questions."""
        return self.path / "answers"

    @property
    def affinity(self) -> Path:
        """2-d visual and text features with their distances, per model."""
        return self.path / "affinity.json"

    @property
    def summary(self) -> Path:
        """The few numbers a script wants."""
        return self.path / "summary.json"

    @property
    def picture(self) -> Path:
        """A held-out picture, for a first question to the model."""
        return self.path / "picture.png"

    @property
    def report(self) -> Path:
        """The self-contained page."""
        return self.path / "report.html"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.path / "tensorboard"

    def stage(self, index: int, name: str) -> Path:
        """Folder of a stage's saved parts."""
        return self.path / "stages" / f"{index:02d}-{name}"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, all or nothing: a crash leaves the previous file as it
    was.
    """
    with whole_file(path) as draft:
        text = json.dumps(value, indent=1, ensure_ascii=False)
        draft.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The JSON value in `path`; RunError when it is missing or cut."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist; is {path.parent} a run folder?") from error
    except json.JSONDecodeError as error:
        raise RunError(
            f"{path} is not valid JSON ({error}); restore it or start the run anew"
        ) from error


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line."""
    append_lines(path, [value])


def append_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """Append a JSON line for each value, all or nothing: OSError leaves the file as it was."""
    text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    # Unbuffered: a buffer may fail at close, when what was written can no longer be cut off.
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            view = memoryview(text.encode())
            while view:
                view = view[file.write(view) :]
        except OSError:
            # A part of a line, as a full disk leaves it, would spoil the next one.
            file.truncate(before)
            raise


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every complete JSON line of `path`; nothing when it is missing; a last line cut by a
    crash is left out.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)

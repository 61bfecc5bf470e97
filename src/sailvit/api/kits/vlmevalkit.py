"""A run as a model of VLMEvalKit, in the kit's own process and through its own `run`.

    python -m sailvit.api.kits.vlmevalkit runs/mine --data MMStar --judge exact_matching

All but the run is handed to the kit. It has no entry points: its models are a dictionary, which
this module adds one to before the kit starts.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sailvit.api.models import load_run
from sailvit.core.errors import DataError
from sailvit.inference.model import LONGEST, RunModel


def kit_model(base: type) -> type:
    """Our class of model for the kit, below its own `BaseModel`.

    Made when it is asked for, as importing the kit imports hundreds of models.
    """

    class Sailvit(base):
        """Answers the kit's messages, one at a time, as the kit asks them."""

        INTERLEAVE = True

        def __init__(self, path: str, longest: int = LONGEST, device: str | None = None) -> None:
            super().__init__()
            self._model = load_run(Path(path), device=device)
            self._longest = longest

        def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: Any = None) -> str:
            """The answer to pieces of text and paths of images, in their order."""
            del dataset  # The kit has put the question as the set wants it.
            return answer(self._model, message, self._longest)

    return Sailvit


def answer(model: RunModel, message: Sequence[Mapping[str, str]], longest: int) -> str:
    """The answer to the kit's pieces: texts, and images by path."""
    pieces = [
        {"type": "image", "image": Path(each["value"])}
        if each["type"] == "image"
        else {"type": each["type"], "text": each["value"]}
        for each in message
    ]
    text: str = model.chat([{"role": "user", "content": pieces}], max_new_tokens=longest)
    return text


def register(path: Path, name: str, longest: int = LONGEST) -> None:
    """Add a run to the kit's models: by `name` for `--model`, as class `Sailvit` for `--config`."""
    config, vlm = (importlib.import_module(f"vlmeval.{part}") for part in ("config", "vlm"))
    made = kit_model(importlib.import_module("vlmeval.vlm.base").BaseModel)
    config.supported_VLM[name] = partial(made, path=str(path), longest=longest)
    setattr(vlm, made.__name__, made)


def kit_run() -> Callable[[], Any]:
    """The kit's own start: `vlmeval.run` of the package, `run` beside a checkout.

    Raises:
        DataError: the kit is not here.
    """
    if find_spec("vlmeval") is None:
        raise DataError(
            "VLMEvalKit is not here; install ms-vlmeval, or run this in a checkout of VLMEvalKit"
        )
    place = "vlmeval.run" if find_spec("vlmeval.run") else "run"
    started: Callable[[], Any] = importlib.import_module(place).main
    return started


def main(words: Sequence[str]) -> None:
    """Register the run that comes first, and hand the other words to the kit.

    Raises:
        DataError: no run is named, or the kit is not here.
    """
    if not words or words[0].startswith("-"):
        raise DataError("name a run first, then the kit's own arguments, such as --data MMStar")
    path = Path(words[0])
    # As `sailvit evaluate` calls it: a run's folder.
    name = path.resolve().name
    started = kit_run()
    register(path, name)
    named = [] if "--config" in words else ["--model", name]
    sys.argv = ["vlmeval", *named, *words[1:]]
    started()


if __name__ == "__main__":
    main(sys.argv[1:])

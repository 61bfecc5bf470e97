"""A run as a model of lmms-eval, which finds it by the entry point `lmms_eval.models`.

    lmms-eval eval --model sailvit --model_args pretrained=runs/mine --tasks mmstar --batch_size 16

Only lmms-eval imports this module: its classes are needed to be one of its models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from sailvit.api.models import load_run
from sailvit.core.errors import DataError
from sailvit.inference.conversation import conversation
from sailvit.inference.generation import Options, read_options
from sailvit.inference.model import LONGEST

NAME = "sailvit"
"""Name of the model on the kit's command line."""


def manifest() -> ModelManifest:
    """What the entry point hands over."""
    return ModelManifest(NAME, chat_class_path=f"{__name__}.{SailvitChat.__name__}")


class SailvitChat(lmms):
    """Answers the kit's chat messages, in batches and in the order of the requests."""

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        stage: str | None = None,
        device: str | None = None,
        batch_size: int | str = 16,
        **unused: Any,
    ) -> None:
        """`pretrained` is a run, a stage or a copy of one; the kit hands over strings."""
        super().__init__()
        # The kit gives every model its limits on batches, which none of ours has.
        if strange := sorted(set(unused) - {"max_batch_size"}):
            raise DataError(
                f"--model_args has {', '.join(strange)}; expected pretrained, stage, device"
            )
        self._model = load_run(Path(pretrained), stage, device=device)
        self._batch = int(batch_size)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """An answer per request, up to the first of the texts that its task stops at."""
        by_options: dict[str, tuple[Options, list[int]]] = {}
        records = []
        for number, request in enumerate(requests):
            _, to_messages, given, doc_id, task, split = request.args
            messages = to_messages(self.task_dict[task][split][doc_id])
            records.append(conversation([_message(each) for each in messages]))
            options = by_options.setdefault(repr(given), (_options(given), []))
            options[1].append(number)
        answers = [""] * len(records)
        for chosen, numbers in by_options.values():
            some = [records[number] for number in numbers]
            found = self._model.answers(some, chosen, batch=self._batch)
            for number, text in zip(numbers, found, strict=True):
                context, _, given, *_ = requests[number].args
                answers[number] = _until(text, given)
                self.cache_hook.add_partial("generate_until", (context, given), answers[number])
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Nothing: our models answer in text.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"{len(requests)} requests ask for likelihoods; choose a task that generates answers"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Nothing: several rounds are not asked.

        Raises:
            DataError: always.
        """
        raise DataError(f"{len(requests)} requests have several rounds; choose a task with one")


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of the kit's, whose images stand under `url`, as ours."""
    content = message["content"]
    if isinstance(content, str):
        return {"role": message["role"], "content": content}
    pieces = [
        {"type": "image", "image": each["url"]} if each["type"] == "image" else dict(each)
        for each in content
    ]
    return {"role": message["role"], "content": pieces}


def _options(given: Mapping[str, Any]) -> Options:
    """How a task wants its answers; greedy unless it names a temperature or beams."""
    settings: dict[str, Any] = {}
    if given.get("temperature"):
        settings |= {"do_sample": True, "temperature": float(given["temperature"])}
        settings |= {"top_p": float(given["top_p"])} if given.get("top_p") else {}
    if int(given.get("num_beams") or 1) > 1:
        settings["num_beams"] = int(given["num_beams"])
    return read_options(int(given.get("max_new_tokens") or LONGEST), settings)


def _until(text: str, given: Mapping[str, Any]) -> str:
    """The answer before the first of the texts that its task stops at.

    Cut off afterwards: transformers looks for such texts in the vocabulary, and fails on
    tokenizers of whole words.
    """
    until = given.get("until") or []
    for stop in [until] if isinstance(until, str) else until:
        text = text.partition(stop)[0] if stop else text
    return text.strip()

"""Generation from prompts with images: batches by length, a KV cache, each image seen once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import GenerationConfig
from transformers.generation.stopping_criteria import StoppingCriteria

from sailvit.core.errors import DataError, ModelError
from sailvit.core.records import ImageLike, Record
from sailvit.data.processing.processor import Processor
from sailvit.inference.stopping import StopTexts
from sailvit.inference.visual_tokens import VisualTokens
from sailvit.models.languages.decoding import end_tokens, plain_generation
from sailvit.models.languages.positions import table_length
from sailvit.models.loading.build import ModelBundle
from sailvit.models.structure.answering import Answering, generate_whole, generating

CALLED = (
    *("streamer", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn"),
    *("assistant_model", "negative_prompt_ids", "negative_prompt_attention_mask", "synced_gpus"),
)
"""Options that `generate` takes as arguments; all others are settings of a GenerationConfig."""
_OURS = ("eos_token_id", "pad_token_id", "max_new_tokens")
"""Settings that change nothing about how a token is chosen."""
_ENOUGH = 0.75
"""Share of a batch's answers after whose ends the others go on with those that other batches left.
Every prompt is then read 1.33 times at most, and one long answer no longer keeps 15 ended ones in
the batch."""
_FEW = 4
"""So few answers go on to their ends: leaving one would gain less than reading it again costs."""


@dataclass(frozen=True)
class Prompt:
    """What an answer is generated from."""

    tokens: torch.Tensor
    """int64[T]: token ids, with one placeholder id per visual token."""
    images: tuple[ImageLike, ...]
    """The images of its placeholders, in order."""

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Options:
    """How tokens are chosen and when an answer ends."""

    longest: int
    """Most tokens of an answer."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a GenerationConfig; what is left out is greedy."""
    called: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `generate`: a streamer, processors of scores, stopping criteria."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer and are no part of it."""
        given = self.settings.get("stop_strings") or ()
        return tuple(stop for stop in ((given,) if isinstance(given, str) else given) if stop)

    @property
    def returned(self) -> int:
        """Answers per prompt."""
        return int(self.settings.get("num_return_sequences") or 1)

    @property
    def greedy(self) -> bool:
        """Whether each answer is the most likely tokens, one after the other, and nothing
        else is asked for.
        """
        plain = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}
        changed = {n for n, value in self.settings.items() if value != plain.get(n, ())}
        return not changed - {*_OURS, "stop_strings"} and not self.called


@dataclass
class _Begun:
    """An answer that has not ended."""

    index: int
    """Number of its prompt."""
    prompt: Prompt
    """Its prompt."""
    said: list[int] = field(default_factory=list)
    """Its tokens so far."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.said)


class _Enough(StoppingCriteria):
    """Ends a batch once most of its answers have ended."""

    def __init__(self, ends: Sequence[int]) -> None:
        self._ends = list(ends)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Whether each row ends, bool[B], of int64[B, A] tokens and float[B, N] scores."""
        ends = torch.tensor(self._ends, dtype=torch.long, device=input_ids.device)
        ended = torch.isin(input_ids, ends).any(dim=1)
        return (ended.float().mean() >= _ENOUGH).expand(len(input_ids))


def read_options(longest: int, given: Mapping[str, Any]) -> Options:
    """The options of a call; DataError for a name that transformers' generation does not know.

    A `generation_config` gives settings too; those beside it win.
    """
    options = dict(given)
    config = options.pop("generation_config", None)
    # What differs from the defaults alone, as these would count as asked for.
    settings = {} if config is None else config.to_diff_dict()
    known = vars(GenerationConfig())
    for name in options:
        if name not in known and name not in CALLED:
            near = get_close_matches(name, (*known, *CALLED), n=1)
            raise DataError(
                f"generation has no option {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else "; see transformers' generate")
            )
    settings |= {name: value for name, value in options.items() if name not in CALLED}
    called = {name: value for name, value in options.items() if name in CALLED}
    return Options(int(settings.get("max_new_tokens") or longest), settings, called)


class Generation:
    """Generates tokens with a model; calls from several threads take turns."""

    def __init__(self, bundle: ModelBundle) -> None:
        self._mllm = bundle.mllm
        self.tokenizer = bundle.tokenizer
        # Prompts are never cut: an answer to half a question looks like one to all of it.
        self.processor = Processor(bundle.tokenizer, bundle.layout, longest=1 << 30, day=bundle.day)
        """The processor of training, for samples of any length."""
        self.visual_tokens = VisualTokens(bundle.mllm, bundle.layout)
        """What the language sees of images."""
        # Taken again within itself: a stream holds it around `tokens`.
        self.lock = threading.RLock()
        """Held while tokens are generated: the language's settings change meanwhile."""

    @property
    def ends(self) -> list[int]:
        """Tokens that end an answer."""
        return end_tokens(self._mllm.language, self.tokenizer, self.processor.encoder.ends())

    def _ends_of(self, options: Options) -> list[int]:
        """Tokens that end an answer: those that the caller names, else the model's."""
        given = options.settings.get("eos_token_id", self.ends)
        return [given] if isinstance(given, int) else list(given or ())

    def prompt(self, record: Record) -> Prompt:
        """The prompt of a record's last answer, token for token that of training."""
        text = self.processor.prompt_text(record)
        return Prompt(torch.from_numpy(text.tokens), record.images)

    @torch.no_grad()
    def tokens(
        self, prompts: Sequence[Prompt], options: Options, *, batch: int
    ) -> Iterator[tuple[int, list[list[int]]]]:
        """The number of a prompt and the tokens of its answers, batch by batch; what follows an
        end is padding.

        Where answers are greedy, a batch whose most answers have ended leaves the others to go
        on together with those of other batches.
        """
        waiting = [_Begun(index, prompt) for index, prompt in enumerate(prompts)]
        most = max(map(len, waiting), default=0) + options.longest
        with self.lock, self.generating(most) as how:
            may_leave = how.cached and how.padded and options.greedy and not options.stops
            while waiting:
                # Prompts of similar length share a batch, so that little of it is padding.
                waiting.sort(key=len)
                lengths = list(map(len, waiting))
                groups = list(how.batches(range(len(waiting)), lengths, batch))
                some_leave, left = may_leave and len(waiting) > _FEW, list[_Begun]()
                for group in groups:
                    chosen = [waiting[place] for place in group]
                    if some_leave:
                        yield from self._ended(chosen, options, how, left)
                    else:
                        yield from self._answered(chosen, options, how)
                waiting = left

    def _ended(
        self, begun: Sequence[_Begun], options: Options, how: Answering, left: list[_Begun]
    ) -> Iterator[tuple[int, list[list[int]]]]:
        """The answers of a batch that have ended once most have; the others are put to `left`."""
        ends = self._ends_of(options)
        enough = replace(options, called={"stopping_criteria": [_Enough(ends)]})
        for each, (index, (tokens,)) in zip(begun, self._answered(begun, enough, how), strict=True):
            if len(tokens) >= options.longest or not set(ends).isdisjoint(tokens):
                yield index, [tokens]
            else:
                left.append(_Begun(index, each.prompt, tokens))

    def _answered(
        self, begun: Sequence[_Begun], options: Options, how: Answering
    ) -> Iterator[tuple[int, list[list[int]]]]:
        """The answers of a batch, with what was said before."""
        embedded = self.embed([each.prompt for each in begun])
        if any(each.said for each in begun):
            embedded = [
                self._after(row, each.said) for row, each in zip(embedded, begun, strict=True)
            ]
        # Those that said less before may say more now; the others' surplus is cut off.
        rest = options.longest - min(len(each.said) for each in begun)
        found = self.answer_batch(embedded, replace(options, longest=rest), how)
        for place, each in enumerate(begun):
            at = place * options.returned
            rows = found[at : at + options.returned]
            yield each.index, [[*each.said, *row][: options.longest] for row in rows]

    def _after(self, embedded: torch.Tensor, said: Sequence[int]) -> torch.Tensor:
        """A prompt's embeddings float[T, D] with those of tokens behind."""
        table = self._mllm.language.get_input_embeddings()
        tokens = torch.tensor(said, dtype=torch.long, device=embedded.device)
        return torch.cat([embedded, table(tokens).to(embedded.dtype)])

    def generating(self, longest: int) -> Any:
        """A context for answers in texts of up to `longest` tokens, which gives the way to
        make them.

        Raises:
            DataError: the language has no positions for so many tokens.
        """
        most = table_length(self._mllm.language, longest)
        if most is not None and longest > most:
            raise DataError(
                f"prompt and answer may take {longest} tokens, and this language's table of"
                f" positions ends at {most}; ask for shorter answers or shorten the prompt",
                kind="too long",
            )
        return generating(self._mllm, longest)

    def embed(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Input embeddings float[T, D] of each prompt, visual tokens in their places."""
        # One call for all images of the batch, so that one that several prompts show runs once.
        found = self.visual_tokens([image for prompt in prompts for image in prompt.images])
        tokens = torch.cat([prompt.tokens for prompt in prompts]).to(self._mllm.device)
        none = torch.zeros(0, 3, 0, 0, dtype=torch.uint8, device=tokens.device)
        visual = torch.cat(found) if found else self._mllm.visual(none)
        embedded = self._mllm.embed(tokens, visual)
        return list(embedded.split([len(p) for p in prompts]))  # type: ignore[no-untyped-call]

    def answer_batch(
        self, embedded: Sequence[torch.Tensor], options: Options, how: Answering
    ) -> list[list[int]]:
        """Tokens of the answers to prompts float[T, D], one prompt's after the other's."""
        if not how.cached:
            if not options.greedy:
                raise ModelError(
                    "this language's cache changes its scores, so answers can only be greedy;"
                    " leave sampling, beams, streamers and processors of scores out"
                )
            return generate_whole(self._mllm, embedded, options.longest, self._ends_of(options))
        lengths = [len(row) for row in embedded]
        # On the left, so that every row's answer begins at the same position.
        rows = torch.stack([pad(row, (0, 0, max(lengths) - len(row), 0)) for row in embedded])
        places = torch.arange(max(lengths), device=rows.device)
        mask = torch.stack([places >= max(lengths) - length for length in lengths]).long()
        made = self.run(rows, mask, options)
        found: list[list[int]] = getattr(made, "sequences", made).tolist()
        return found

    def run(self, rows: torch.Tensor, mask: torch.Tensor, options: Options) -> Any:
        """What the language's own `generate` gives for embeddings float[B, T, D] with
        int64[B, T] mask.
        """
        language, ends = self._mllm.language, self.ends
        # generate needs one for rows that have ended; what follows an end is cut off, so any
        # will do.
        spare = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, *ends, 0)
        padding = next(token for token in spare if token is not None)
        settings = {n: value for n, value in options.settings.items() if n != "stop_strings"}
        called = dict(options.called)
        if options.stops:
            own = called.get("stopping_criteria") or ()
            called["stopping_criteria"] = [*own, StopTexts(self.tokenizer, options.stops)]
        with plain_generation(
            language,
            longest=options.longest,
            ends=ends,
            padding=padding,
            options=settings,
        ) as config:
            return language.generate(
                inputs_embeds=rows,
                attention_mask=mask,
                generation_config=config,
                **called,
            )

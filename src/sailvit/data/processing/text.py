"""Conversations as token ids and labels."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from operator import itemgetter
from os.path import commonprefix
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from sailvit.core.batch import IGNORED
from sailvit.core.errors import DataError
from sailvit.core.layout import VisualLayout
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.data.processing.chat_template import Template
from sailvit.data.processing.reasoning import reasoning_refused, with_reasoning

FastTokenizer: TypeAlias = PreTrainedTokenizerFast
"""A tokenizer that knows character offsets."""
Ids = NDArray[np.int64]
"""Token ids or labels, int64[T]."""

_START, _END = itemgetter(0), itemgetter(1)
"""The two sides of a token's offsets."""

LONGEST_TEXT = 2_000_000
"""Most characters of a turn: more would take seconds to tokenize, and be cut off anyway."""


@dataclass(frozen=True)
class Tokenized:
    """A conversation as ids, its images as runs of placeholders."""

    tokens: Ids
    """int64[T]: token ids."""
    labels: Ids
    """int64[T]: the token to predict after each position, or -100."""
    runs: tuple[tuple[int, int], ...]
    """Start and end of each image's placeholders, in order."""

    def __len__(self) -> int:
        return len(self.tokens)


class TextEncoder:
    """Tokenizes conversations for one tokenizer and one visual layout.

    Turns are stripped of surrounding blanks, as some templates do so and others do not. The
    whole text is tokenized once, and character offsets show which tokens are answers, so that
    training and generation have the same ids. `day` is the date that dated templates write;
    None: today.
    """

    def __init__(
        self, tokenizer: FastTokenizer, layout: VisualLayout, day: date | None = None
    ) -> None:
        self.layout = layout
        self._template = Template(tokenizer, day)
        if not tokenizer.is_fast:
            raise DataError(
                f"{type(tokenizer).__name__} knows no character offsets; load the fast"
                " tokenizer instead"
            )
        # A copy, since truncation and padding are settings of the shared object.
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        found = self._backend.encode(layout.placeholder, add_special_tokens=False).ids
        if found != [layout.placeholder_id]:
            raise DataError(
                f"the tokenizer turns the placeholder {layout.placeholder!r} into {found};"
                f" expected the one id {layout.placeholder_id}: add it to the tokenizer as a"
                " special token"
            )
        for token in layout.wrap or ():
            found = self._backend.encode(token, add_special_tokens=False).ids
            if len(found) != 1 or found == [layout.placeholder_id]:
                raise DataError(
                    f"the tokenizer turns {token!r} of model.image.wrap into {found}; expected"
                    " one id of its own: name another token"
                )
        self._mark = layout.placeholder.join(layout.wrap or ("", ""))

    def encode(self, record: Record, tiles: Sequence[int]) -> Tokenized:
        """All tokens, with labels on assistant turns and their end-of-turn tokens; `tiles` is
        each image's number of tiles.
        """
        text, spans = self.render(record)
        _refuse_nothing_learnt(record)
        answers = (turn for turn in record.turns if turn.role == "assistant")
        spans = [span for span, turn in zip(spans, answers, strict=True) if turn.learnt]
        return self._tokenize(text, spans, tiles)

    def encode_prompt(self, record: Record, tiles: Sequence[int]) -> Tokenized:
        """The tokens up to the last assistant turn's text, where generation starts, without
        labels.
        """
        return self._tokenize(self.render_prompt(record), [], tiles)

    def render_prompt(self, record: Record) -> str:
        """The text of that prompt, with one placeholder token per image."""
        if record.turns[-1].role != "assistant":
            record = replace(record, turns=(*record.turns, Turn("assistant", "")))
        text, spans = self.render(record)
        return text[: spans[-1][0]]

    def only_asked(self, record: Record) -> str:
        """What the prompt of the record's last question ends with and training does not show
        before its answer: the empty thinking that some templates write, where this answer begins
        with thinking. Empty where both are the same.
        """
        if record.turns[-1].role != "assistant":
            return ""
        asked = self.render_prompt(replace(record, turns=record.turns[:-1]))
        text, spans = self.render(record)
        shared = commonprefix((asked, text[: spans[-1][0]]))  # noqa: RUF071 (these are no paths)
        return asked[len(shared) :].strip()

    def render(self, record: Record) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as text with one placeholder token per image, and the character
        spans of its answers.
        """
        parts = [self._template.split(content) for content in self._contents(record)]
        skeleton = self._template.skeleton(
            tuple((t.role, part[0]) for t, part in zip(record.turns, parts, strict=True))
        )
        if not skeleton.in_order and any(
            IMAGE_MARK in turn.text for turn in record.turns if turn.role == "system"
        ):
            raise DataError(
                "the chat template moves the system text behind other turns, and it holds an"
                " image; move the image into the turn that asks about it",
                kind="marks",
            )
        return skeleton.fill([stretch for part in parts for stretch in part[1]])

    def ends(self) -> tuple[int | None, int | None]:
        """The token that is learnt after an answer inside a conversation, and after one at its
        end; each is None where no token is.
        """
        inside, last = (
            self._backend.token_to_id(text) if text else None for text in self._template.ends()
        )
        return inside, last

    def remarks(self) -> Iterator[str]:
        """Sentences about what the chat template does and its user rarely wants."""
        inside, last = self.ends()
        if last is None:
            where = "" if inside is None else ", unless another turn follows it"
            yield (
                f"the chat template writes no token that ends an answer{where}, so no stop will"
                " be learnt there: answers go on until the limit of their tokens; give the"
                " tokenizer a template that ends turns with a special token"
            )
        elif inside is None:
            yield (
                "the chat template ends an answer only where the conversation ends, so no stop"
                " will be learnt for answers inside a conversation"
            )
        if dates := self._template.dates():
            yield (
                "the chat template writes the date; in this run it is always"
                f" {', '.join(dict.fromkeys(dates))}. Set model.chat_date to have the same in"
                " another run"
            )

    def _said(self, turn: Turn) -> str:
        """A turn's text, its reasoning included."""
        if not turn.reasoning:
            return turn.text.strip()
        if not self._template.joins_reasoning:
            raise reasoning_refused()
        return with_reasoning(turn.reasoning, turn.text.strip())

    def _contents(self, record: Record) -> list[str]:
        placeholder, said = self.layout.placeholder, map(self._said, record.turns)
        return [self._joined(pieces) for pieces in _pieces(said, record, placeholder)]

    def _joined(self, pieces: Sequence[str]) -> str:
        """A turn's text with an image between each two of its pieces."""
        if not self.layout.newline:
            return self._mark.join(pieces)
        # Not at the end of a turn: some templates strip what they are given, others do not.
        ends = [piece == "" and place == len(pieces) - 1 for place, piece in enumerate(pieces)]
        parted = [
            piece if last or piece.startswith("\n") else f"\n{piece}"
            for piece, last in zip(pieces[1:], ends[1:], strict=True)
        ]
        return self._mark.join([pieces[0], *parted])

    def _tokenize(
        self, text: str, spans: Sequence[tuple[int, int]], tiles: Sequence[int]
    ) -> Tokenized:
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids, offsets = np.array(encoding.ids, dtype=np.int64), encoding.offsets
        answers = np.full(len(ids), IGNORED, dtype=np.int64)
        for start, end in spans:
            # Starts and ends of tokens never decrease, so bisection finds a span's tokens.
            inside = slice(
                bisect_right(offsets, start, key=_END), bisect_left(offsets, end, key=_START)
            )
            answers[inside] = ids[inside]
        runs: tuple[tuple[int, int], ...] = ()
        if len(tiles):
            images = np.flatnonzero(ids == self.layout.placeholder_id)
            lengths = np.array(tiles, dtype=np.int64) * self.layout.tokens_per_tile
            repeats = np.ones(len(ids), dtype=np.int64)
            repeats[images] = lengths
            # An image and the tokens around it are given to the model, never asked of it.
            for place in range(-self.layout.edge, self.layout.edge + 1):
                answers[images + place] = IGNORED
            ids, answers = ids.repeat(repeats), answers.repeat(repeats)
            begins = images + np.cumsum(lengths) - lengths - np.arange(len(images))
            runs = tuple(zip(begins.tolist(), (begins + lengths).tolist(), strict=True))
        # Labels are shifted inside the sample, so that none reaches into the next of its pack.
        return Tokenized(ids, np.append(answers, IGNORED)[1:], runs)


def refuse_unlearnable(record: Record, placeholder: str) -> None:
    """DataError for a record that can be no sample with any tokenizer of this placeholder."""
    _pieces((turn.text for turn in record.turns), record, placeholder)
    _refuse_nothing_learnt(record)


def _refuse_nothing_learnt(record: Record) -> None:
    learnt = [turn.learnt for turn in record.turns if turn.role == "assistant"]
    if not learnt:
        raise DataError(
            "no assistant turn, so nothing to learn; give the record an answer or remove it",
            kind="turns",
        )
    if not any(learnt):
        raise DataError(
            "every answer is marked as not to be learnt; expected one to learn: set its flag to"
            " 1 or remove the record",
            kind="turns",
        )


def _pieces(texts: Iterable[str], record: Record, placeholder: str) -> list[list[str]]:
    """The texts of a record's turns, split at their image marks."""
    # Split before the check: the placeholder may be spelt like the marks.
    found = [_checked(text).split(IMAGE_MARK) for text in texts]
    if any(placeholder in piece for pieces in found for piece in pieces):
        raise DataError(
            f"a turn contains the placeholder token {placeholder!r}; expected {IMAGE_MARK}"
            " where an image goes",
            kind="marks",
        )
    marks = sum(len(pieces) - 1 for pieces in found)
    if marks != len(record.images):
        raise DataError(
            f"{marks} {IMAGE_MARK} marks for {len(record.images)} images; expected one mark per"
            " image: add or remove marks in the turns",
            kind="marks",
        )
    return found


def _checked(text: str) -> str:
    """A turn's text; DataError when it cannot be tokenized."""
    if len(text) > LONGEST_TEXT:
        found = (
            f"{len(text):,} characters; at most {LONGEST_TEXT:,} are tokenized: split the record"
        )
        raise DataError(f"a turn has {found}", kind="too long")
    if "\0" in text:
        raise DataError(
            "a turn holds a NUL character; expected text: clean it or remove the record",
            kind="text",
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"a turn is no Unicode text ({error.reason}); clean it or remove it", kind="text"
        ) from error
    return text

"""The text around the turns of a conversation, found once per shape of conversation.

A chat template may rewrite history (Qwen3 removes earlier thinking), so rendering growing
prefixes does not show where an answer stands. Instead the template is rendered once with a
sentinel in the place of every text; the text between the sentinels depends on the roles alone
and is kept. That also saves Jinja's 0.1 to 1 ms per conversation.

A template may also search texts: Qwen3 splits answers at `</think>`. The strings that it
searches for are found in its source; they stay in the text that is rendered, and each stretch
between them gets its own sentinel. Once per shape, a rendering of texts in which most changes
would show proves that the template does nothing else to texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerFast

from sailvit.core.errors import DataError
from sailvit.data.processing.reasoning import joins_reasoning
from sailvit.data.processing.skeleton import Skeleton, Slot
from sailvit.data.processing.template_source import (
    fix_date,
    looked_for,
    template_source,
    written_dates,
)

_HOLE = "\0"
_MOST_KNOWN = 4096
_SENTINEL = re.compile(r"zq(\d+)qz")

_REFUSED = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)
"""What a template raises on a conversation that it was not written for: by its own `raise`, or
by a Python error in it."""
_PROBE = f""" It's <b>&"{{{{ x }}}}" \\n\n\n  \tÜBER 1. 中 {"word " * 60}end"""
"""A text in which changes of case, blanks, lines, quotes, marks or length would show."""
_TALK = ("user", "assistant", "user", "assistant")

Shape = tuple[tuple[str, str], ...]
"""Role and text of every turn, with a NUL for each stretch that the template does not
search."""


class Template:
    """The skeletons of the tokenizer's chat template, or of a plain format when it has none.

    `day` is the date that dated templates write; None: today.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, day: date | None = None) -> None:
        self._tokenizer = tokenizer
        source = template_source(tokenizer)
        day = day or date.today()
        self.source = fix_date(source, day)
        """Jinja source of conversations, its date fixed; empty for the plain format."""
        self._dates = written_dates(source, day)
        self._controls = re.compile(f"({_any_of(looked_for(source))})")
        # Some templates write a line break before the end of a turn; it is learnt with it.
        self._end_of_turn = re.compile(
            rf"\s*(?:{_any_of({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})})"
        )
        self._known: dict[Shape, Skeleton] = {}
        self.pieces = bool(source) and self._wants_pieces()
        """Whether a turn's content is given as a list with one piece of text."""

    @property
    def opens(self) -> bool:
        """Whether the tokenizer begins texts with its beginning-of-text token."""
        begin = self._tokenizer.bos_token_id
        return begin is not None and self._tokenizer("a").input_ids[0] == begin

    def split(self, text: str) -> tuple[str, list[str]]:
        """A turn's text with a NUL for each stretch that the template does not search, and
        those stretches.
        """
        pieces = self._controls.split(text)
        stretches = [core for piece in pieces[::2] if (core := piece.strip())]
        if len(pieces) == 1 or not stretches:
            return _HOLE, [text]
        pieces[::2] = [
            piece.replace(core, _HOLE) if (core := piece.strip()) else piece
            for piece in pieces[::2]
        ]
        return "".join(pieces), stretches

    def skeleton(self, shape: Shape) -> Skeleton:
        """The skeleton of conversations of this shape."""
        if shape not in self._known:
            # Conversations of ever other lengths would fill the memory; those in use come back
            # at once.
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[shape] = self._skeleton(shape)
        return self._known[shape]

    @cached_property
    def joins_reasoning(self) -> bool:
        """Whether reasoning may be put into an answer's text; see `joins_reasoning`."""
        try:
            return bool(self.source) and joins_reasoning(self._rendered)
        except _REFUSED:
            return False

    def render(self, roles: Sequence[str], texts: Sequence[str]) -> str:
        """The whole conversation as text."""
        if not self.source:
            return self._plain(roles, texts)
        try:
            return self._written(roles, texts, pieces=self.pieces)
        except _REFUSED as error:
            raise DataError(
                f"the tokenizer's chat template refuses a conversation of {', '.join(roles)}"
                f" ({error}); reorder or merge its turns, or give the tokenizer another"
                " template",
                kind="turns",
            ) from error

    def dates(self) -> list[str]:
        """The dates that the template writes; empty for templates without a date."""
        return self._dates

    def ends(self) -> tuple[str, str]:
        """The tokens after an answer inside a conversation, and after one at its end; each is
        empty where there is none.
        """
        # Some templates take no conversation without a system turn.
        for roles in (_TALK, ("system", *_TALK)):
            try:
                text, spans = self.skeleton(tuple((role, _HOLE) for role in roles)).fill(
                    ["a"] * len(roles)
                )
            except DataError:
                continue
            inside, last = (text[slice(*span)].strip()[1:].strip() for span in spans)
            return inside, last
        return "", ""

    def _written(self, roles: Sequence[str], texts: Sequence[str], *, pieces: bool) -> str:
        """The chat template's rendering of turns whose content is a text, or with `pieces` a
        list with one piece of text.
        """
        turns = [
            {"role": role, "content": [{"type": "text", "text": text}] if pieces else text}
            for role, text in zip(roles, texts, strict=True)
        ]
        return self._rendered(turns)

    def _rendered(self, turns: Sequence[dict[str, Any]]) -> str:
        return str(
            self._tokenizer.apply_chat_template(turns, tokenize=False, chat_template=self.source)
        )

    def _wants_pieces(self) -> bool:
        """Whether the template shows turns only as lists of pieces, as those of image-text
        models may.
        """

        def shown(*, pieces: bool) -> bool:
            """Whether both texts of a short conversation appear."""
            try:
                text = self._written(_TALK[:2], ("zq0qz", "zq1qz"), pieces=pieces)
            except _REFUSED:
                return False
            return _SENTINEL.findall(text) == ["0", "1"]

        return not shown(pieces=False) and shown(pieces=True)

    def _plain(self, roles: Sequence[str], texts: Sequence[str]) -> str:
        """`USER: ...` and `ASSISTANT: ...` on lines of their own, an end-of-text token after
        every answer.
        """
        tokenizer = self._tokenizer
        if not tokenizer.eos_token:
            raise DataError(
                "the tokenizer has neither a chat template nor an end-of-text token; give it"
                " one of them"
            )
        names = {"system": "", "user": "USER: ", "assistant": "ASSISTANT: "}
        ends = {"assistant": tokenizer.eos_token}
        lines = [
            names[role] + text + ends.get(role, "") for role, text in zip(roles, texts, strict=True)
        ]
        return (tokenizer.bos_token if self.opens else "") + "\n".join(lines)

    def _skeleton(self, shape: Shape) -> Skeleton:
        """The slots of every stretch, found by rendering sentinels."""
        roles = [role for role, _ in shape]
        owners = [turn for turn, (_, text) in enumerate(shape) for _ in range(text.count(_HOLE))]
        names = iter(range(len(owners)))
        # Letters and digits, as templates strip, split and escape other characters.
        texts = [re.sub(_HOLE, lambda _: f"zq{next(names)}qz", text) for _, text in shape]
        literals = _SENTINEL.split(self.render(roles, texts))
        shown = [int(found) for found in literals[1::2]]
        _check_shown(roles, shown, owners)
        skeleton = Skeleton(tuple(self._slots(shape, owners, literals)), literals[-1])
        self._prove(shape, skeleton, len(owners))
        return skeleton

    def _prove(self, shape: Shape, skeleton: Skeleton, stretches: int) -> None:
        """DataError unless the template shows texts unchanged."""
        probes = [f"{number}{_PROBE}" for number in range(stretches)]
        names = iter(probes)
        texts = [re.sub(_HOLE, lambda _: next(names), text) for _, text in shape]
        found = self.render([role for role, _ in shape], texts)
        expected, _ = skeleton.fill(probes)
        if found != expected:
            at = next(
                (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
                min(len(found), len(expected)),
            )
            raise DataError(
                "the tokenizer's chat template changes texts: it writes"
                f" {found[at : at + 20]!r} where a turn says {expected[at : at + 20]!r}, so"
                " what it makes of an answer cannot be told; expected every text unchanged:"
                " give the tokenizer another template",
                kind="template",
            )

    def _slots(
        self, shape: Shape, owners: Sequence[int], literals: Sequence[str]
    ) -> Iterator[Slot]:
        """The slots between the literals; those of answers say how much of the literals belongs
        to the answer.
        """
        last = {owner: stretch for stretch, owner in enumerate(owners)}
        begun: set[int] = set()
        for before, found, after in zip(
            literals[:-2:2], literals[1::2], literals[2::2], strict=True
        ):
            stretch = int(found)
            turn = owners[stretch]
            role, text = shape[turn]
            opens = self._lead(before, text) if role == "assistant" and turn not in begun else None
            closes = self._tail(after) if role == "assistant" and stretch == last[turn] else None
            begun.add(turn)
            yield Slot(before, stretch, opens, closes)

    def _lead(self, literal: str, text: str) -> int:
        """Characters of the literal before an answer that are learnt with it.

        They are what the answer itself begins with (`<think>`), or else spaces, as tokenizers
        join these to the first word.
        """
        # Without blanks, as templates part thinking and answer by line breaks of their own.
        opening = [re.escape(mark) for mark in text[: text.index(_HOLE)] if not mark.isspace()]
        found = re.search(r"\s*".join([*opening, r"\Z"]), literal) if opening else None
        return len(literal) - (found.start() if found else len(literal.rstrip(" ")))

    def _tail(self, literal: str) -> int:
        """Characters of the literal after an answer up to the end of the end-of-turn token; 0
        when there is none.
        """
        found = self._end_of_turn.match(literal)
        return found.end() if found else 0


def _check_shown(roles: Sequence[str], shown: Sequence[int], owners: Sequence[int]) -> None:
    """DataError unless each turn's last stretch is shown once, in order, and all of an answer
    at the end. Earlier stretches (thinking) may be missing from history.

    A system text may stand anywhere: some templates put it into the last question.
    """
    spoken = [stretch for stretch in shown if roles[owners[stretch]] != "system"]
    last = {owner: stretch for stretch, owner in enumerate(owners)}
    for turn, stretch in last.items():
        if shown.count(stretch) != 1 or spoken != sorted(set(spoken)):
            raise DataError(
                f"the tokenizer's chat template shows turn {turn + 1} of {', '.join(roles)}"
                f" {shown.count(stretch)} times or out of order; expected every turn once,"
                " unchanged: give the tokenizer another template",
                kind="template",
            )
    ending = len(roles) - 1
    whole = {stretch for stretch, owner in enumerate(owners) if owner == ending}
    if roles[ending] == "assistant" and not whole <= set(shown):
        raise DataError(
            "the tokenizer's chat template leaves out a part of the last answer, as its thinking;"
            " expected all of it, as it is learnt: remove that part from the text, or give the"
            " tokenizer another template",
            kind="template",
        )


def _any_of(strings: set[str]) -> str:
    """A pattern that matches any of the strings, the longest first; without any, it matches
    nothing.
    """
    return (
        "|".join(re.escape(text) for text in sorted(strings, key=len, reverse=True) if text)
        or "(?!)"
    )

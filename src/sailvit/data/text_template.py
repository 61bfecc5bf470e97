"""The text around the turns of a conversation, found once per sequence of roles.

A chat template may rewrite history (Qwen3 removes earlier thinking), so rendering growing prefixes does not tell where
an answer stands. Instead the template is rendered once with a sentinel in place of every turn's text; what lies between
the sentinels depends on the roles alone and is kept. That also keeps Jinja (about a millisecond) out of the loop.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from transformers import PreTrainedTokenizerFast

from sailvit.core.errors import DataError

Roles = tuple[str, ...]


@dataclass(frozen=True)
class Skeleton:
    """A conversation without its turns' texts."""

    literals: tuple[str, ...]
    """The text before each turn, and after the last; one more than there are turns."""
    lead: tuple[int, ...]
    """Spaces that end the literal before each turn; counted to an answer, as tokenizers join them to its first word."""
    tail: tuple[int, ...]
    """Characters after each turn up to the end of its end-of-turn token; 0 when none follows."""


class Template:
    """Skeletons by roles: of the tokenizer's chat template, or of a plain format when it has none."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._known: dict[Roles, Skeleton] = {}
        atoms = {*tokenizer.all_special_tokens, *(str(token) for token in tokenizer.get_added_vocab())}
        choices = "|".join(re.escape(atom) for atom in sorted(atoms, key=len, reverse=True) if atom)
        self._end_of_turn = re.compile(rf"\s*(?:{choices})") if choices else None

    def skeleton(self, roles: Roles) -> Skeleton:
        """The text around turns with these roles."""
        if roles not in self._known:
            literals = self._chat(roles) if self.tokenizer.chat_template else self._plain(roles)
            lead = tuple(len(text) - len(text.rstrip(" ")) for text in literals[:-1])
            self._known[roles] = Skeleton(tuple(literals), lead, tuple(self._tail(text) for text in literals[1:]))
        return self._known[roles]

    def render(self, roles: Sequence[str], texts: Sequence[str]) -> str:
        """What the tokenizer's own template makes of whole turns."""
        turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        except jinja2.TemplateError as error:
            raise DataError(
                f"the tokenizer's chat template refuses a conversation of {', '.join(roles)} ({error});"
                " reorder or merge its turns, or give the tokenizer another template"
            ) from error

    def _chat(self, roles: Roles) -> list[str]:
        sentinels = [f"zq{index}turn{index}qz" for index in range(len(roles))]
        rest = self.render(roles, sentinels)
        literals = []
        for index, sentinel in enumerate(sentinels):
            before, found, after = rest.partition(sentinel)
            if not found or sentinel in after:
                raise DataError(
                    f"the tokenizer's chat template shows turn {index + 1} ({roles[index]}) of {', '.join(roles)}"
                    f" {'more than once or out of order' if found else 'not at all or changed'};"
                    " expected exactly once and in order: give the tokenizer another template"
                )
            literals.append(before)
            rest = after
        return [*literals, rest]

    def _plain(self, roles: Roles) -> list[str]:
        """`USER: ...` and `ASSISTANT: ...` on lines of their own, an end-of-text token after every answer."""
        tokenizer = self.tokenizer
        if not tokenizer.eos_token:
            raise DataError("the tokenizer has neither a chat template nor an end-of-text token; give it one of them")
        ids = tokenizer("a").input_ids
        opening = tokenizer.bos_token if ids and ids[0] == tokenizer.bos_token_id and tokenizer.bos_token else ""
        literals = [opening]
        for index, role in enumerate(roles):
            prefix = "" if role == "system" else f"{role.upper()}: "
            literals[-1] += "\n" * (index > 0) + prefix
            literals.append(tokenizer.eos_token if role == "assistant" else "")
        return literals

    def _tail(self, literal: str) -> int:
        found = self._end_of_turn.match(literal) if self._end_of_turn else None
        return found.end() if found else 0

"""Text of an answer while its tokens come: whole characters only, and nothing that a stop may
still take back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What bytes that are no whole character decode to."""


class TextStream:
    """Turns the tokens of one answer into pieces of text, which joined are the answer.

    The answer ends at the first of `ends` or before the first of `stops`; blanks around it are
    left out. A character of several tokens comes when it is whole, and blanks or the beginning
    of a stop come when more text follows.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        ends: Collection[int] = (),
        stops: Sequence[str] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._ends = ends
        self._stops = [stop for stop in stops if stop]
        self._tokens: list[int] = []
        self._from, self._read = 0, 0
        self._text = ""
        self._sent = 0
        self.ended = False
        """Whether an end or a stop has come; later tokens change nothing."""

    @property
    def tokens(self) -> int:
        """Number of tokens of the answer so far, its end not counted."""
        return len(self._tokens)

    def put(self, token: int) -> str:
        """The text that is certain after one more token; may be empty."""
        if self.ended or token in self._ends:
            self.ended = True
            return ""
        self._tokens.append(token)
        # The last two groups of tokens are decoded again, as a decoder may write the first
        # token of a text otherwise than a later one.
        before = self._decode(self._tokens[self._from : self._read])
        now = self._decode(self._tokens[self._from :])
        if len(now) <= len(before) or now.endswith(_BROKEN):
            return ""
        self._from, self._read = self._read, len(self._tokens)
        self._text += now[len(before) :]
        return self._certain()

    def finish(self) -> str:
        """The rest of the text, once no more tokens come; the beginning of a character that did
        not come whole is left out.
        """
        before = self._decode(self._tokens[self._from : self._read])
        rest = self._decode(self._tokens[self._from :])[len(before) :]
        self._text += rest.rstrip(_BROKEN)
        self._from = self._read = len(self._tokens)
        self._cut()
        return self._piece(len(self._text.strip()))

    def _certain(self) -> str:
        if self._cut():
            return self._piece(len(self._text.strip()))
        text, most = self._text, max(map(len, self._stops), default=1) - 1
        held = next((n for n in range(min(most, len(text)), 0, -1) if self._may_stop(text[-n:])), 0)
        return self._piece(len(text[: len(text) - held].strip()))

    def _may_stop(self, tail: str) -> bool:
        return any(stop.startswith(tail) for stop in self._stops)

    def _cut(self) -> bool:
        """Cut the text before its first stop; whether there is one."""
        found = [at for stop in self._stops if (at := self._text.find(stop)) >= 0]
        if found:
            self._text, self.ended = self._text[: min(found)], True
        return bool(found)

    def _piece(self, end: int) -> str:
        piece = self._text.lstrip()[self._sent : end]
        self._sent += len(piece)
        return piece

    def _decode(self, tokens: Sequence[int]) -> str:
        return decoded(self._tokenizer, tokens)


def decoded(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """Tokens as text, without special tokens and otherwise as they are."""
    # Cleaning up blanks before full stops would change text that has already been sent.
    return str(
        tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def text_of(
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[int],
    ends: Collection[int],
    stops: Sequence[str] = (),
) -> str:
    """The text of an answer that is complete: up to its first end or stop, blanks around it
    left out.
    """
    # The road of streaming, as decoding all tokens at once may write them otherwise: a byte that
    # is no character takes others before it along, and an end need not be a special token.
    stream = TextStream(tokenizer, ends, stops)
    return "".join([*map(stream.put, tokens), stream.finish()])

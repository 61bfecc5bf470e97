"""Turns in public layouts: LLaVA, ShareGPT, OpenAI messages, ms-swift, Qwen-VL, Alpaca, TRL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sailvit.core.errors import DataError, one_line
from sailvit.core.records import IMAGE_MARK, Turn
from sailvit.data.rows.keys import REFUSED, has_content, unread_keys
from sailvit.data.rows.pieces import Pieces, read_pieces

Role = Literal["system", "user", "assistant"]

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""Roles by the words that public data sets use for them, in lower case."""
_TOOL_ROLES = frozenset(
    ("tool", "function", "observation", "function_call", "tool_call", "tool_response", "ipython")
)
TURNS = ("conversations", "messages", "conversation", "texts")
"""Keys under which rows hold turns; The Cauldron's `texts` are pairs without image marks."""
PAIRS = {
    "output": ("instruction", "input"),
    "response": ("query", "prompt"),
    "completion": ("prompt",),
}
"""Keys of the answer in rows without turns, and the keys of its question: Alpaca, ms-swift,
TRL."""
_SAID = (*TURNS, *PAIRS, *dict.fromkeys(key for asked in PAIRS.values() for key in asked))
"""Keys of a row that may hold turns or their texts."""
SYSTEMS = ("system", "system_prompt", "system_message")
"""Keys of a row that hold the text of a system turn."""
FLAGS = ("loss", "weight", "train", "training", "trainable", "loss_weight", "loss_scale")
"""Keys of a turn that say whether it is learnt: 0 or 1, false or true."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of an assistant's turn that hold its reasoning."""

_SPEAKERS = ("from", "role")
_TEXTS = ("value", "content", "text")
_REFUSED = {*REFUSED, "refusal", "image", "images", "train_detail", "mask", "masked"}
"""Keys of a turn that would change what is learnt and are not supported."""
_INLINE = re.compile(r"<img>\s*([^<>\n]+?)\s*</img>")
"""An image in a text, as Qwen-VL writes it."""


@dataclass
class Talk:
    """The conversation of a row: its turns, and the images inside them."""

    turns: list[Turn] = field(default_factory=list)
    """The turns in order, a system column first."""
    images: list[Any] = field(default_factory=list)
    """Images inside the turns, in order, as given; not decoded."""
    marks: int = 0
    """Image marks in the turns so far, including those for images of the row."""
    unread: list[str] = field(default_factory=list)
    """Keys of turns and pieces that hold a value and were not read."""
    read: set[str] = field(default_factory=set)
    """Keys of the row that were read."""


def has_turns(row: Mapping[str, Any]) -> bool:
    """Whether a row holds a conversation, as turns or as a question and its answer."""
    return any(row.get(key) is not None for key in TURNS) or _pair(row) is not None


def may_hold_images(row: Mapping[str, Any]) -> bool:
    """Whether a row's turns may hold images; texts without any are told quickly."""
    return any(_may_show(row.get(key)) for key in _SAID)


def _may_show(said: Any) -> bool:
    """Whether turns or a text hold pieces or `<img>`, and so perhaps images."""
    if isinstance(said, str):
        return "<img>" in said
    turns = said if isinstance(said, list) else ()
    # Only the values of turns: an image inside a piece is seen by the list around it.
    parts = (part for turn in turns if isinstance(turn, dict) for part in turn.values())
    return any("<img>" in part if isinstance(part, str) else _listed(part) for part in parts)


def _listed(value: Any) -> bool:
    return isinstance(value, list | dict)


def read_talk(row: Mapping[str, Any]) -> Talk:
    """The conversation of a row; DataError that names what is not supported."""
    talk = Talk()
    key = next((key for key in TURNS if row.get(key) is not None), None)
    if key is None and (answer := _pair(row)) is not None:
        _take_pair(row, answer, talk)
    else:
        for given in _given(row, key):
            talk.turns += _spoken(given, talk, f"{key}[].")
        talk.read.add(str(key))
    system = system_text(row, talk)
    first = next(iter(talk.turns), None)
    if system and first is not None and first.role == "system":
        # Many sets give the system text twice, in the turns and as a column; once is meant.
        if first.text.strip() != system.strip():
            raise DataError(
                "found a system turn and another text in the row's `system`; expected one of them:"
                " remove one, or join them",
                kind="turns",
            )
    elif system:
        talk.turns.insert(0, Turn("system", system))
    return talk


def system_text(row: Mapping[str, Any], talk: Talk) -> str:
    """The system text in a key of the row; empty without one."""
    talk.read.update(SYSTEMS)
    # Keys that say the same count as one.
    found = {key: row[key] for key in SYSTEMS if has_content(row.get(key))}
    texts = {value if isinstance(value, str) else None for value in found.values()}
    if None in texts or len(texts) > 1:
        raise DataError(
            f"found {one_line(found, 80)}; expected one system text in `system`: correct the row",
            kind="turns",
        )
    return next(iter(texts), None) or ""


def _given(row: Mapping[str, Any], key: str | None) -> Sequence[Any]:
    turns = None if key is None else row[key]
    if not isinstance(turns, list) or not turns:
        found = f"keys {', '.join(row) or 'none'}" if key is None else f"`{key}` {turns!r}"
        raise DataError(
            f"found {one_line(found, 200)}; expected a list of turns in `conversations` or"
            " `messages`, not its JSON as text",
            kind="turns",
        )
    return turns


def _pair(row: Mapping[str, Any]) -> str | None:
    """The answer's key in a row with a question and its answer; None for other rows."""
    return next(
        (
            answer
            for answer, asked in PAIRS.items()
            if has_content(row.get(answer)) and any(has_content(row.get(key)) for key in asked)
        ),
        None,
    )


def _take_pair(row: Mapping[str, Any], answer: str, talk: Talk) -> None:
    """Read `{instruction, input, output}`, `{query, response}` or `{prompt, completion}`."""
    asked = [key for key in PAIRS[answer] if has_content(row.get(key))]
    # Empty fields too: Alpaca's rows without an input are read in full.
    talk.read.update((*PAIRS[answer], answer, "history"))
    history = row.get("history") or []
    # Whatever is no list is itself no pair.
    for said in history if isinstance(history, list) else [history]:
        talk.turns += _past(said, talk)
    values = [row[key] for key in (*asked, answer)]
    kinds = {type(value) for value in values}
    if kinds == {str}:
        question, reply = "\n".join(values[:-1]), values[-1]
        talk.turns += [_written("user", question, talk), _written("assistant", reply, talk)]
    elif kinds == {list} and len(asked) == 1:
        _take_lists(values, (asked[0], answer), talk)
    else:
        raise DataError(
            f"found `{'`, `'.join((*asked, answer))}` of different kinds; expected texts, or lists"
            " of turns: correct the row",
            kind="turns",
        )


def _take_lists(values: Sequence[Sequence[Any]], keys: tuple[str, str], talk: Talk) -> None:
    """Read the turns of a prompt and those of its completion.

    TRL trains on the completion alone, so answers in the prompt are not learnt.
    """
    for given in values[0]:
        shown = _spoken(given, talk, f"{keys[0]}[].")
        talk.turns += [replace(turn, learnt=turn.role != "assistant") for turn in shown]
    for given in values[1]:
        talk.turns += _spoken(given, talk, f"{keys[1]}[].")


def _past(said: Any, talk: Talk) -> list[Turn]:
    """The turns of a question and its answer in `history`; the answer is learnt like others."""
    match said:
        case [str(question), str(reply)]:
            return [_written("user", question, talk), _written("assistant", reply, talk)]
    raise DataError(
        f"found `history` {one_line(said, 80)}; expected a list of pairs, each a question and its answer:"
        " correct the row",
        kind="turns",
    )


def _spoken(given: Any, talk: Talk, where: str) -> Iterator[Turn]:
    """The turn of `{from, value}` or `{role, content}`, or both of `{user, assistant}`."""
    fields = given if isinstance(given, dict) else {}
    # The Cauldron's layout, in which a question and its answer are one element.
    asks, answers = _text_key(fields, ("user", "human")), _text_key(fields, ("assistant", "gpt"))
    if asks and answers:
        _refuse_in_turn(fields)
        talk.unread += unread_keys(fields, (asks, answers, *FLAGS), where)
        yield _written("user", fields[asks], talk)
        learnt = _learnt(fields, "assistant")
        yield replace(_written("assistant", fields[answers], talk), learnt=learnt)
    else:
        yield _turn(given, fields, talk, where)


def _text_key(fields: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if isinstance(fields.get(key), str)), None)


def _turn(given: Any, fields: Mapping[str, Any], talk: Talk, where: str) -> Turn:
    """A turn from `{from, value}` or `{role, content}`; InternVL's own example has `text`."""
    speaker = str(next((fields[key] for key in _SPEAKERS if fields.get(key) is not None), None))
    _refuse_in_turn(fields)
    if speaker.lower() in _TOOL_ROLES:
        raise DataError(
            f"found a turn of {speaker!r}; calls of tools and their results are not rendered:"
            " write them as text of user and assistant, or remove the record",
            kind="unsupported",
        )
    key = next((key for key in _TEXTS if fields.get(key) is not None), None)
    text = None if key is None else fields[key]
    if isinstance(text, list | dict):
        pieces = read_pieces(text, talk.marks, f"{where}{key}[].")
        text = _joined(pieces, talk)
    role = ROLES.get(speaker.lower())
    if role is None or not isinstance(text, str):
        raise DataError(
            f"found turn {one_line(given, 80)}; expected `from` (or `role`), one of"
            f" {', '.join(ROLES)}, and text in `value` (or `content`)",
            kind="turns",
        )
    talk.unread += unread_keys(fields, (*_SPEAKERS, str(key), *FLAGS, *REASONING), where)
    turn = _written(role, text, talk)
    return replace(turn, learnt=_learnt(fields, role), reasoning=_reasoning(fields, role))


def _joined(pieces: Pieces, talk: Talk) -> str:
    talk.images += pieces.images
    talk.unread += pieces.unread
    return pieces.text


def _written(role: Role, text: str, talk: Talk) -> Turn:
    """A turn in whose text each `<img>path</img>` has become a mark, and an image of `talk`."""
    if "<img>" in text:
        talk.images += _INLINE.findall(text)
        text = _INLINE.sub(IMAGE_MARK, text)
    talk.marks += text.count(IMAGE_MARK)
    return Turn(role, text)


def _refuse_in_turn(fields: Mapping[str, Any]) -> None:
    # Refused rather than listed as unread: without them the model would learn something else.
    for key in fields.keys() & _REFUSED:
        if has_content(fields[key]):
            advice = REFUSED.get(key, "it changes what is learnt and is not read: remove it")
            raise DataError(
                f"found `{key}` in a turn ({one_line(fields[key], 60)}); {advice}",
                kind="unsupported",
            )


def _learnt(fields: Mapping[str, Any], role: Role) -> bool:
    """Whether a turn is trained on, by its flags; an answer without flags is."""
    found = {key: fields[key] for key in FLAGS if fields.get(key) is not None}
    wrong = [key for key, value in found.items() if isinstance(value, str) or value not in (0, 1)]
    if wrong or len({bool(value) for value in found.values()}) > 1:
        raise DataError(
            f"found {one_line(found, 80)} in a turn; expected 0 or 1 (false or true): a turn is"
            " learnt or it is not, and shares of its loss are not supported",
            kind="unsupported",
        )
    if role != "assistant" and any(found.values()):
        raise DataError(
            f"found {one_line(found, 80)} in a turn of the {role}; only answers are learnt: set it"
            " to 0 or remove it",
            kind="unsupported",
        )
    # `learnt` of a question has no effect; true keeps such turns equal to those without flags.
    return role != "assistant" or all(found.values())


def _reasoning(fields: Mapping[str, Any], role: Role) -> str:
    """The reasoning that an answer's turn holds apart from its text; empty without any."""
    key = next((key for key in REASONING if has_content(fields.get(key))), None)
    if key is None:
        return ""
    if role != "assistant" or not isinstance(fields[key], str):
        raise DataError(
            f"found `{key}` ({one_line(fields[key], 60)}) in a turn of the {role}; expected text in"
            " a turn of the assistant: remove it",
            kind="unsupported",
        )
    return str(fields[key])

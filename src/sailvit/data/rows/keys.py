"""Keys and marks of public layouts beside turns and images: refused, or listed as unread."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sailvit.core.errors import DataError, one_line
from sailvit.core.records import Turn

_MEDIA = "only images are learnt from: remove the record, or write its words into the turns"
_VIDEO = "format `video_frames` reads videos as folders of frames: set it, or remove the record"
_TOOLS = "calls of tools are not rendered: write them into the turns' text, or remove the record"
_PAIRS = "preferences are not trained on: keep the answer to learn in the turns, and drop this key"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("video", "videos", "video_path", "frames"), _VIDEO),
    **dict.fromkeys(("audio", "audios", "input_audio", "speech"), _MEDIA),
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call"), _TOOLS),
    **dict.fromkeys(("chosen", "rejected", "rejected_response", "rejected_messages"), _PAIRS),
    **dict.fromkeys(("rejected_images", "kto_tag"), _PAIRS),
}
"""Keys of rows that would change what is learnt and are not supported, with the advice."""

_MOST_KEYS = 100
"""Keys that are counted separately."""
_FURTHER = "other keys"
_EMPTY_TEXTS = frozenset(("", "[]", "{}", "null", "none"))
"""Texts that columns hold in the place of no value."""
_FOREIGN = re.compile(
    r"<(?P<element>video|audio|Image|IMAGE)>|<img>|<ref-object>|<bbox>|<speech>"
    r"|<IMG_CONTEXT>|<ImageHere>|<image>[^<>]{0,9}</image>|<image[_ ]?\d+>"
    r"|<image_(?:placeholder|soft_token|pad)>|<(?:start|end)_of_image>"
    r"|<\|(?:image|video|audio)(?:_pad|_\d+)?\|>|<\|vision_(?:start|end)\|>"
)
"""Marks of other layouts for images, videos and sounds, which would be learnt as words: those
of ms-swift, Qwen, InternVL, XComposer, MiniCPM-V (`<image>./</image>`), DeepSeek-VL, Gemma, Phi
and Llama."""
_GROUNDING = re.compile(r"<(?:ref|box|quad|poly|point|loc)>|<\|(?:object_ref|box|quad)_start\|>")
"""Grounding tags with their coordinates in the text, as in Qwen-VL and InternVL."""


def has_content(value: Any) -> bool:
    """Whether a value is more than None, blank text, or a list or struct of only these."""
    if value is None or isinstance(value, str | bytes):
        return bool(value and value.strip())
    if isinstance(value, Mapping):
        return any(map(has_content, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_content, value))
    return True


def refuse_keys(row: Mapping[str, Any], *, read: Collection[str] = ()) -> None:
    """DataError for the first key that would change what is learnt, except those in `read`."""
    for key in row.keys() & REFUSED.keys():
        value = row[key]
        empty = isinstance(value, str) and value.strip().lower() in _EMPTY_TEXTS
        if key not in read and not empty and has_content(value):
            raise DataError(
                f"found `{key}` ({one_line(value, 60)}); {REFUSED[key]}", kind="unsupported"
            )
    # True or false is a preference (KTO); numbers and texts are classes and stay unread.
    if isinstance(row.get("label"), bool):
        raise DataError(f"found `label` ({row['label']}), yes or no; {_PAIRS}", kind="unsupported")


def unread_keys(row: Mapping[str, Any], read: Collection[str], before: str = "") -> tuple[str, ...]:
    """Keys of a row or turn that hold a value and are not in `read`, each after `before`."""
    return tuple(
        one_line(f"{before}{key}", 60)
        for key, value in row.items()
        if key not in read and has_content(value)
    )


def count_unread(counts: Counter[str], keys: Iterable[str]) -> None:
    """Count the unread keys of a record; from `_MOST_KEYS` keys on, new ones share a count."""
    for key in keys:
        counts[key if key in counts or len(counts) < _MOST_KEYS else _FURTHER] += 1


def unread_line(name: str, counts: Mapping[str, int]) -> str:
    """A sentence that lists the unread keys of a source, each with its number of records."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    # Grounding tags are counted among the keys, of which none begins with "<".
    keys = [f"`{key}` ({count:,})" for key, count in ordered if not key.startswith("<")]
    marks = [f"{key} ({count:,})" for key, count in ordered if key.startswith("<")]
    told = [f"keys not read: {', '.join(keys)}"] if keys else []
    told += [f"learnt as plain text: {', '.join(marks)}"] if marks else []
    return f"source {name}: {'; '.join(told)}; in brackets the records that hold them"


def refuse_marks(turns: Iterable[Turn]) -> None:
    """DataError for marks of other layouts in the turns; closed HTML elements are text."""
    for turn in turns:
        if "<" not in turn.text:
            continue
        for mark in _FOREIGN.finditer(turn.text):
            if mark["element"] and f"</{mark['element']}>" in turn.text:
                continue
            raise DataError(
                f"found the mark {mark[0]} in a turn of the {turn.role}; expected <image> where an"
                " image goes, and no marks of anything else: they would be learnt as words. Write"
                " out what it stands for, or remove the record",
                kind="marks",
            )


def grounding_marks(turns: Iterable[Turn]) -> tuple[str, ...]:
    """Grounding tags in the turns, which are learnt as text."""
    found = (mark for turn in turns if "<" in turn.text for mark in _GROUNDING.findall(turn.text))
    return tuple(dict.fromkeys(found))

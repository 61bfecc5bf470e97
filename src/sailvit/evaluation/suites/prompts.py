"""The text that a model is asked for a row, as VLMEvalKit asks it, and other forms for sets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Literal, get_args

from sailvit.core.errors import DataError
from sailvit.core.records import IMAGE_MARK, ImageLike, Record, Turn
from sailvit.evaluation.scoring.cells import says_nothing
from sailvit.evaluation.scoring.kinds import Kind
from sailvit.evaluation.scoring.rows import Row

_NUMBERED = re.compile(r"<image (\d)>")
"""MMMU's marks; each names the number of its image."""
_LINE = "Please select the correct answer from the options above. \n"
"""The kit's line below the options, with its blank and its line break."""
_WORD = "\nAnswer the question using a single word or phrase."
_LETTER = "Answer with the option's letter from the given choices directly."

Style = Literal["vlmevalkit", "direct", "bare"]
"""`vlmevalkit`: the kit's own prompts; `direct`: as models on the leaderboard usually ask, with a
line that wants a short answer; `bare`: the question alone."""
STYLES: tuple[Style, ...] = get_args(Style)
"""All styles."""


@dataclass(frozen=True)
class PromptForm:
    """How a set's questions are put."""

    ask: str | None = None
    """Text below the options, which are listed; None: the question stands alone."""
    suffix: str = ""
    """Text after all."""
    marks: bool = False
    """Whether `<image k>` in the text says where images stand; else all stand before it."""


def _kinds(form: PromptForm, *kinds: Kind) -> dict[Kind, PromptForm]:
    return dict.fromkeys(kinds, form)


_FORMS: dict[Style, dict[Kind, PromptForm]] = {
    "vlmevalkit": {
        **_kinds(PromptForm(ask=_LINE), "mcq", "circular"),
        **_kinds(PromptForm(ask=_LINE, marks=True), "mmmu"),
        **_kinds(PromptForm(suffix=_WORD), "anls", "relaxed", "vqa", "exact", "exact-mean"),
    },
    "direct": {
        **_kinds(PromptForm(ask=_LETTER), "mcq", "circular"),
        **_kinds(PromptForm(ask=_LETTER, marks=True), "mmmu"),
        **_kinds(
            PromptForm(suffix=" Please answer yes or no."), "yes-no", "hallusion", "pope", "mme"
        ),
        **_kinds(PromptForm(suffix=_WORD), "ocrbench", "anls", "relaxed", "vqa", "exact"),
    },
    "bare": {"mmmu": PromptForm(marks=True)},
}
"""Forms by style and kind; a kind that is missing is asked bare."""


def read_style(name: str) -> Style:
    """The style of that name; DataError for another."""
    for known in STYLES:
        if known == name:
            return known
    raise DataError(f"there is no style of prompts {name!r}; write {', '.join(STYLES)}")


def form_of(kind: Kind, style: Style = "vlmevalkit") -> PromptForm:
    """How a kind of set is asked in a style."""
    return _FORMS[style].get(kind, PromptForm())


def read_forms(path: Path) -> dict[str, dict[str, str | bool]]:
    """Changes to the forms of sets from a JSON file such as
    `{"HallusionBench": {"suffix": " Please answer yes or no."}}`.
    """
    known = set(PromptForm.__dataclass_fields__)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        unknown = {key for values in found.values() for key in values} - known
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f'{path} holds no prompts ({error}); expected {{"SET": {{"suffix": "..."}}}}'
        ) from error
    if unknown:
        raise DataError(f"{path} has {sorted(unknown)}; a prompt has {', '.join(sorted(known))}")
    return {name: dict(values) for name, values in found.items()}


def changed(form: PromptForm, values: Mapping[str, str | bool]) -> PromptForm:
    """The form with what a file of prompts says."""
    return replace(form, **values)  # type: ignore[arg-type]


def prompt_text(row: Row, form: PromptForm) -> str:
    """The text asked for a row, before images are placed; options and hint as they are typed."""
    question = str(row.get("question", ""))
    if form.ask is None:
        return question + form.suffix
    # As the kit reads the table: an option `nan` or `None` is none.
    given = {name: value for name, cell in row.items() if not says_nothing(value := str(cell))}
    hint = f"Hint: {given['hint']}\n" if "hint" in given else ""
    options = "".join(f"{name}. {given[name]}\n" for name in ascii_uppercase if name in given)
    listed = f"Options:\n{options}" if options else ""
    return f"{hint}Question: {question}\n{listed}{form.ask}{form.suffix}"


def prompt_record(row: Row, images: tuple[ImageLike, ...], form: PromptForm) -> Record:
    """What a model is asked for a row: its text, with its images in their places.

    Raises:
        DataError: the text names an image that the row does not have.
    """
    # A question that speaks of the mark itself would take an image's place.
    text = prompt_text(row, form).replace(IMAGE_MARK, "image")
    numbers = [int(number) - 1 for number in _NUMBERED.findall(text)] if form.marks else []
    if numbers and not all(0 <= number < len(images) for number in numbers):
        raise DataError(
            f"the question shows image {max(numbers) + 1} of {len(images)}; fetch the table again",
            kind="marks",
        )
    if numbers:
        # Images that no mark names are not shown, as in the kit.
        text, images = _NUMBERED.sub(IMAGE_MARK, text), tuple(images[number] for number in numbers)
    else:
        text = f"{IMAGE_MARK}\n" * len(images) + text
    turns = (Turn("user", text), Turn("assistant", ""))
    return Record(str(row.get("index", "")), turns, images, "qa")

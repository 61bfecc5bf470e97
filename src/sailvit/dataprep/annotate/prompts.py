"""The prompts that models are given; a file can replace each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sailvit.core.errors import DataError
from sailvit.core.records import IMAGE_MARK, Record, Turn

CAPTION = "{caption}"
"""Replaced by the record's text."""

RICHNESS = """You rate how much a text tells about an image.

Text: {caption}

How much of what can be seen does the text put into words? Count objects, their properties, where they are, what they
do, and any writing. Do not count guesses, praise or anything that cannot be seen.
1: next to nothing. 2: only the main subject. 3: the main subject with some properties. 4: most things with their
properties or places. 5: nearly everything, in detail.
Answer with one digit from 1 to 5 and nothing else."""

ALIGNMENT = """You check a text against an image.

Text: {caption}

How far is what the text says true of this image?
1: it describes something else. 2: most of it is wrong. 3: about half of it is wrong or cannot be seen. 4: true but for
small mistakes. 5: everything it says can be seen and is right.
Answer with one digit from 1 to 5 and nothing else."""

QUESTIONS = {"richness": RICHNESS, "alignment": ALIGNMENT}
"""Prompts of the caption judge, by name."""

PAIRS = (
    """Here is an image with a description.

Description: {caption}

Write three to five questions that somebody could ask about the image and that the description answers, with short
answers. Ask about different things. Ask nothing that the description leaves open, and do not mention the description.
Reply with a JSON list only: [{"question": "...", "answer": "..."}]""",
    """The text below describes an image.

Text: {caption}

Turn it into a test: two or three questions that need looking closely at the image, such as how many, which colour,
where, or what is written, and one that needs a step of reasoning. Everything must follow from the text. Answers are a
word, a number or a short sentence.
Reply with a JSON list only: [{"question": "...", "answer": "..."}]""",
)
"""Prompts that turn captions into questions; records take them in turn."""
_BETWEEN = "\n---\n"


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts in a text file, separated by lines of `---`; each must hold `{caption}`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as a prompt ({error}); expected a text file, or one of"
            f" {', '.join(QUESTIONS)}"
        ) from error
    prompts = tuple(prompt.strip() for prompt in text.split(_BETWEEN) if prompt.strip())
    without = next((prompt for prompt in prompts if CAPTION not in prompt), None)
    if not prompts or without is not None:
        found = f"a prompt that begins {without[:40]!r}" if without else "nothing"
        raise DataError(
            f"{path} holds {found}; expected every prompt to hold {CAPTION}, where the record's"
            " text goes"
        )
    return prompts


def prompt_record(record: Record, prompt: str) -> Record:
    """A record whose only turn asks `prompt` about the images and text of `record`; DataError
    if that has no image.
    """
    if not record.images:
        raise DataError(f"record {record.id} has no image to ask about", kind="no image")
    # Not `format`: captions and prompts may hold braces of their own.
    text = prompt.replace(CAPTION, caption_text(record))
    return Record(
        record.id, (Turn("user", f"{IMAGE_MARK}\n" * len(record.images) + text),), record.images
    )


def caption_text(record: Record) -> str:
    """A record's text about its images: its caption, or all questions with their answers."""
    answers = [turn.text.strip() for turn in record.turns if turn.role == "assistant"]
    if len(answers) == 1 and record.kind == "caption":
        return answers[0]
    names = {"user": "Question", "assistant": "Answer", "system": "Setting"}
    lines: Sequence[str] = [f"{names[turn.role]}: {_plain(turn.text)}" for turn in record.turns]
    return "\n".join(lines)


def _plain(text: str) -> str:
    return text.replace(IMAGE_MARK, "").strip()

"""What a judge is asked: our own prompts, and those that a user wrote in their place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sailvit.core.errors import DataError

Use = Literal["choice", "yes-no", "extract", "grade"]
"""What a judge is asked for: the letter of an option, yes or no, the final answer within a
response (MathVista), or a grade from 0 to 1 (MM-Vet)."""
USES: tuple[Use, ...] = get_args(Use)
"""All uses."""
# Only a grade sees the right answer: a judge that knows it would read it into the others.
_PLACES: Mapping[Use, tuple[str, ...]] = {
    "choice": ("question", "options", "prediction"),
    "yes-no": ("question", "prediction"),
    "extract": ("question", "prediction"),
    "grade": ("question", "answer", "prediction"),
}
"""Places that a prompt may have."""
_PLACE = re.compile(r"\{([a-z_]+)\}")
"""A name in braces with nothing else between; other braces are text, such as those of JSON."""


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt with named places."""

    template: str
    """The text, with `{question}` and so on where they go."""
    file: str | None = None
    """Name of the file that it was read from; None: our own."""

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def filled(self, **values: str) -> str:
        """The text with all its places filled."""
        # At once, so that an answer which holds `{answer}` itself is not filled.
        return _PLACE.sub(lambda found: values[found[1]], self.template)


OWN_PROMPTS: Mapping[Use, JudgePrompt] = {
    "choice": JudgePrompt(
        "Below are a multiple-choice question, its options and somebody's answer in their own"
        " words. Write the single capital letter of the option that the answer means. Write Z if"
        " it means none of them, or refuses. Write nothing else.\n\n"
        "Question: {question}\nOptions:\n{options}\nAnswer: {prediction}\nLetter: "
    ),
    "yes-no": JudgePrompt(
        "Below are a question of yes or no and somebody's answer in their own words. Write one"
        " word: Yes or No, whichever the answer means, or Unknown if it means neither.\n\n"
        "Question: {question}\nAnswer: {prediction}\nWord: "
    ),
    "extract": JudgePrompt(
        "Below are a question, with a hint about the form of its answer, and a response. Write"
        " the response's final answer alone, in the form that the hint asks for: a number"
        " without unit, a list, or the letter of a choice. Add nothing.\n"
        "For example, from `The sequence goes on with 14.` for an integer take 14, from `Luca"
        " needs $1.45.` for two decimals 1.45, from `It is (B) 8/11.` for a choice B.\n\n"
        "{question}\nResponse: {prediction}\nFinal answer: "
    ),
    "grade": JudgePrompt(
        "Compare an answer with the right one and give its correctness: one number among 0.0,"
        " 0.1, 0.2 and so on up to 1.0. Parts of the right answer joined by <AND> must all be"
        " there, of those joined by <OR> one is enough; half of the parts are worth 0.5. Write"
        " the number alone.\n\n"
        "Question: {question}\nRight answer: {answer}\nAnswer: {prediction}\nCorrectness: "
    ),
}
"""The prompts of this project, in its own words."""


def read_judge_prompts(given: Sequence[str], uses: Collection[Use]) -> Mapping[Use, JudgePrompt]:
    """A prompt for every use: those in the files that are `given`, else our own.

    Each of `given` is `USE=FILE`, or `FILE` for all of `uses`, which are what the sets at hand
    ask a judge for.

    Raises:
        DataError: a file cannot be read, lacks a place that its use needs or has an unknown one,
            or no set asks a judge for this use.
    """
    made = dict(OWN_PROMPTS)
    for each in given:
        use, _, path = each.rpartition("=")
        if use not in (*USES, ""):
            raise DataError(
                f"--judge-prompt {each} names the use {use!r}; write one of {', '.join(USES)}, or"
                " the file alone"
            )
        # The sets' uses alone: a prompt that nobody would be asked is a mistake.
        chosen = [known for known in uses if use in (known, "")]
        if not chosen:
            asked = f"ask it for: {', '.join(uses)}" if uses else "never ask it"
            raise DataError(
                f"--judge-prompt {each} would not be used: the sets {asked}; leave it out, or"
                " evaluate a set that needs it"
            )
        template = _read(Path(path))
        for known in chosen:
            _check_places(path, template, known)
            made[known] = JudgePrompt(template, Path(path).name)
    return made


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as a judge's prompt ({error}); expected a text file with"
            " {prediction} where the answer goes"
        ) from error


def _check_places(path: str, template: str, use: Use) -> None:
    places, found = _PLACES[use], dict.fromkeys(_PLACE.findall(template))
    # A question may go unsaid where the right answer, or the options, say enough.
    missing = [name for name in places if name not in found and name != "question"]
    unknown = [name for name in found if name not in places]
    if not missing and not unknown:
        return
    wrong = [f"lacks {_listed(missing)}"] if missing else []
    wrong += [f"has {_listed(unknown)}, which a prompt for {use} is not given"] if unknown else []
    raise DataError(
        f"{path} {' and '.join(wrong)}; a prompt by which a judge is asked for {use} has"
        f" {_listed(places)}. Change the text (braces with blanks, {{ x }}, stay as they are), or"
        " say which use it is for: --judge-prompt USE=FILE"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)

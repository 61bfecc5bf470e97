"""Options of the commands that may ask a judge, and what they say about scores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sailvit.evaluation.scoring.judging import Judge
    from sailvit.evaluation.scoring.kinds import Cost, Kind
    from sailvit.evaluation.scoring.matching import Matcher
    from sailvit.evaluation.scoring.results import SetScore
    from sailvit.evaluation.scoring.rules import Rules

MatcherName = Annotated[
    str,
    typer.Option(
        "--matcher",
        help="VLMEvalKit's rules of 2026-06, 2025-08, before-2025-08 or before-2025-06.",
    ),
]
JudgeName = Annotated[
    str,
    typer.Option(
        "--judge",
        help="Who is asked where rules do not say: none, a JSONL of replies, or the base address"
        " of an OpenAI-style server.",
    ),
]
JudgeModel = Annotated[
    str | None, typer.Option("--judge-model", help="The judge's name on that server.")
]
JudgeKey = Annotated[
    str | None,
    typer.Option("--judge-key", help="Environment variable that holds the server's key."),
]
JudgePromptFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--judge-prompt",
        metavar="[USE=]FILE",
        help="Your own prompt, with {question}, {options}, {answer}, {prediction} in it; USE:"
        " choice, yes-no, extract or grade.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Ask the judge without asking you first.")]
_CHARACTERS = 4
"""Characters of a token, about."""


@contextmanager
def judge_of(
    judge: str, model: str | None, key_variable: str | None, cache: Path
) -> Iterator[Judge | None]:
    """The judge that the options name; None: nobody is asked."""
    from sailvit.core.errors import DataError

    if judge == "none":
        yield None
        return
    if not judge.startswith(("http://", "https://")):
        from sailvit.evaluation.scoring.judging import read_canned

        yield read_canned(Path(judge))
        return
    if model is None:
        raise DataError("a judge behind a server needs --judge-model, its name there")
    from sailvit.api.judging import EndpointJudge
    from sailvit.dataprep.annotate.wire import EndpointConfig

    config = EndpointConfig(url=judge, model=model, key_variable=key_variable, longest=128)
    asked = EndpointJudge(config, cache)
    try:
        yield asked
    finally:
        asked.close()


def rules_of(
    matcher: Matcher, judge: Judge | None, prompts: Sequence[str], kinds: Collection[Kind]
) -> Rules:
    """The rules for sets of these kinds, with the user's prompts for the judge."""
    from sailvit.core.errors import DataError
    from sailvit.evaluation.scoring.judge_prompts import read_judge_prompts
    from sailvit.evaluation.scoring.judging import CannedJudge
    from sailvit.evaluation.scoring.kinds import JUDGED
    from sailvit.evaluation.scoring.rules import Rules

    if prompts and (judge is None or isinstance(judge, CannedJudge)):
        found = "no judge is asked" if judge is None else f"{judge.name} was written before"
        raise DataError(
            f"--judge-prompt {prompts[0]} would not be used, as {found}; name a server with --judge"
        )
    uses = sorted({JUDGED[kind] for kind in kinds if kind in JUDGED})
    return Rules(matcher, judge, read_judge_prompts(prompts, uses))


def confirmed(judge: Judge | None, *, yes: bool) -> Callable[[Cost], None]:
    """A function that tells what the judge will be asked, and stops when a person says no."""
    from sailvit.core.formatting import counted

    def tell(cost: Cost) -> None:
        """Tell, and ask a person where there is one."""
        if judge is None or not cost.requests:
            return
        tokens = counted(cost.characters // _CHARACTERS, "token")
        typer.echo(
            f"{judge.name} is asked about {counted(cost.requests, 'answer')}, at least once each:"
            f" about {tokens} to read, apart from replies that the cache knows"
        )
        if not yes:
            typer.confirm("Ask it?", default=True, abort=True)

    return tell


def score_cells(score: SetScore | None) -> tuple[str, str]:
    """A score and the number of its unparsed answers, as a table shows them."""
    if score is None:
        return "", ""
    number = "no score" if score.score is None else f"{score.score:.1f}"
    return number, f"{score.unparsed} of {score.total}"


def notes_of(name: str, score: SetScore) -> Sequence[str]:
    """What must be said beside a score, with the set's name."""
    return [f"{name}: {note}" for note in score.notes]

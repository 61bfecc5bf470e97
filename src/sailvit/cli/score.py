"""`sailvit score FILE`: the score of predictions, also of those that other kits wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.cli.terminal.judges import (
    JudgeKey,
    JudgeModel,
    JudgeName,
    JudgePromptFiles,
    MatcherName,
    Yes,
    confirmed,
    judge_of,
    rules_of,
    score_cells,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sailvit.evaluation.suites.scored import ScoredSet

_SHOWN = 24
"""Most numbers of a set that are printed."""


def score(  # noqa: PLR0913, PLR0917 - the options of a command
    file: Annotated[Path, typer.Argument(help="Predictions: .xlsx, .tsv or .jsonl.")],
    name: Annotated[
        str | None, typer.Option("--dataset", help="The set; left out, the file's name says it.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="How it is scored; left out, set and columns say it.")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="TSV of the set, where the file has no answers.")
    ] = None,
    matcher: MatcherName = "2026-06",
    judge: JudgeName = "none",
    judge_model: JudgeModel = None,
    judge_key: JudgeKey = None,
    judge_prompts: JudgePromptFiles = None,
    yes: Yes = False,
    out: Annotated[
        Path | None, typer.Option(help="JSONL to write: every answer with its credit.")
    ] = None,
) -> None:
    """Score a file of predictions as VLMEvalKit would, answer by answer."""
    from sailvit.core.outputs import refuse_foreign_file
    from sailvit.evaluation.scoring.kinds import read_kind
    from sailvit.evaluation.scoring.matching import read_matcher
    from sailvit.evaluation.scoring.rules import Rules
    from sailvit.evaluation.suites.scored import file_cost, score_file, set_of_file

    if out is not None:
        refuse_foreign_file(out, dict.fromkeys(("index", "credit", "understood", "way")))
    read, rows = read_matcher(matcher), _rows(answers)
    known = None if kind is None else read_kind(kind)
    cache = file.with_name(f"{file.name}.judge")
    with judge_of(judge, judge_model, judge_key, cache) as asked:
        questions = set_of_file(file, Rules(read), name=name, kind=known, answers=rows)
        rules = rules_of(read, asked, judge_prompts or [], {questions.kind})
        if asked is not None:
            cost = file_cost(file, rules, name=name, kind=known, answers=rows)
            confirmed(asked, yes=yes)(cost)
        scored = score_file(file, rules, name=name, kind=known, answers=rows)
    _tell(scored, matcher, asked.name if asked else None)
    if out is not None:
        _write(out, scored)


def _rows(answers: Path | None) -> Sequence[Mapping[str, str]] | None:
    if answers is None:
        return None
    from sailvit.evaluation.suites.tables import QuestionTable

    return QuestionTable(answers).rows


def _tell(scored: ScoredSet, matcher: str, judge: str | None) -> None:
    questions, score = scored.questions, scored.score
    number, unparsed = score_cells(score)
    typer.echo(
        f"{questions.name} ({questions.kind}): {number}; unparsed {unparsed};"
        f" judge {judge or 'none'}, matcher {matcher}"
    )
    for note in score.notes:
        typer.echo(f"  {note}")
    names = list(score.metrics)
    for metric in names[:_SHOWN]:
        typer.echo(f"  {metric:<50} {score.metrics[metric]:>8.2f}")
    if len(names) > _SHOWN:
        typer.echo(f"  and {len(names) - _SHOWN} more numbers")


def _write(out: Path, scored: ScoredSet) -> None:
    import json
    from dataclasses import asdict

    from sailvit.core.outputs import write_output

    lines = (json.dumps(asdict(each), ensure_ascii=False) for each in scored.score.answers)
    write_output(out, "".join(f"{line}\n" for line in lines))

"""`sailvit evaluate MODEL...`: models on a suite of questions, scored as VLMEvalKit scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    notes_of,
    rules_of,
    score_cells,
)
from sailvit.cli.terminal.models import Bf16, Device, Longest, StageName
from sailvit.cli.terminal.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console

    from sailvit.evaluation.scoring.rules import Rules
    from sailvit.evaluation.suites.evaluated import Asking, ModelScores
    from sailvit.evaluation.suites.planning import Plan

Models = Annotated[
    list[Path], typer.Argument(metavar="MODEL...", help="Runs, stages, or copies of stages.")
]
Data = Annotated[
    Path | None, typer.Option(help="Folder of the TSV files; $LMUData, else ~/LMUData.")
]
Names = Annotated[
    list[str] | None,
    typer.Option("--dataset", metavar="NAME", help="Only this set, or a TSV of yours."),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="NAME=KIND", help="How a table of yours is scored."),
]
Prompts = Annotated[
    str | None, typer.Option(help="vlmevalkit, direct, bare, or a JSON file of changes.")
]
TilingName = Annotated[
    str, typer.Option(help="recipe: as in training; sail: two grids per image, a budget per set.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Questions of each set.")]
Drawn = Annotated[
    int, typer.Option(min=8, help="Questions of each set of the demo, of each task of its world.")
]
Batch = Annotated[int, typer.Option(min=1, help="Questions at the same time.")]


def evaluate(  # noqa: PLR0913, PLR0917 - the options of a command
    models: Models,
    suite: Annotated[str, typer.Option(help="opencompass or demo.")] = "opencompass",
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder of predictions and scores.")] = Path("eval"),
    names: Names = None,
    kind: Kinds = None,
    prompts: Prompts = None,
    tiling: TilingName = "recipe",
    matcher: MatcherName = "2026-06",
    judge: JudgeName = "none",
    judge_model: JudgeModel = None,
    judge_key: JudgeKey = None,
    judge_prompts: JudgePromptFiles = None,
    yes: Yes = False,
    limit: Limit = None,
    questions: Drawn = 150,
    max_new_tokens: Longest = 256,
    batch: Batch = 16,
    stage: StageName = None,
    device: Device = None,
    bf16: Bf16 = False,
) -> None:
    """Ask models the questions of public sets and score their answers as VLMEvalKit does.

    Start the same command again to go on: what was answered is not computed again. With
    torchrun several processes share the questions.
    """
    from sailvit.api.evaluation import refuse_foreign
    from sailvit.distributed.processes import process_group
    from sailvit.evaluation.scoring.matching import read_matcher
    from sailvit.evaluation.suites.evaluated import Asking
    from sailvit.evaluation.suites.tilings import read_tiling

    refuse_foreign(out)
    how: dict[str, Any] = {
        "longest": max_new_tokens,
        "batch": batch,
        "limit": limit,
        "stage": stage,
        "tiling": read_tiling(tiling),
    }
    asking = Asking(**_prompts(prompts, suite), **how, device=device, bf16=bf16)
    with process_group(), judge_of(judge, judge_model, judge_key, out / "judge.cache") as asked:
        folder = data or (out if suite == "demo" else _fetched())
        plan = _plan(suite, folder, out, names or [], kind or [], questions)
        kinds = {each.questions.kind for each in plan.sets}
        rules = rules_of(read_matcher(matcher), asked, judge_prompts or [], kinds)
        _run(models, plan, out, rules, asking, suite, folder, yes)


def _fetched() -> Path:
    """VLMEvalKit's own folder, so that files that it fetched are found."""
    return Path(os.environ.get("LMUData") or Path.home() / "LMUData")  # noqa: SIM112


def _run(
    models: Sequence[Path],
    plan: Plan,
    out: Path,
    rules: Rules,
    asking: Asking,
    suite: str,
    folder: Path,
    yes: bool,
) -> None:
    from rich.console import Console

    from sailvit.api.evaluation import evaluate as evaluate_models
    from sailvit.cli.terminal.steps import steps_shown
    from sailvit.distributed.processes import rank
    from sailvit.models.loading.quiet import quiet_libraries

    quiet_libraries()
    console = Console(quiet=rank() != 0, markup=False)
    _tell_plan(console, plan, folder)
    costs = confirmed(rules.judge, yes=yes)
    with steps_shown(console) as shown:
        found = evaluate_models(models, plan, out, rules, asking, seen=shown, costs=costs)
    if found:
        tell_scores(console, found, suite)
        console.print(f"Files and all numbers: {out}", highlight=False, soft_wrap=True)
        # Matplotlib is imported when there is something to draw.
        from sailvit.report.evaluation.page import write_evaluation_report

        page = write_evaluation_report(out)
        console.print(f"Page: {page}", highlight=False, soft_wrap=True)


def _prompts(prompts: str | None, suite: str) -> dict[str, Any]:
    from sailvit.evaluation.suites.prompts import read_forms, read_style

    default = "bare" if suite == "demo" else "vlmevalkit"
    if prompts is not None and prompts.endswith(".json"):
        return {"style": default, "forms": read_forms(Path(prompts))}
    return {"style": read_style(prompts or default)}


def _plan(
    suite: str, folder: Path, out: Path, names: Sequence[str], kinds: Sequence[str], count: int
) -> Plan:
    from sailvit.core.errors import DataError
    from sailvit.distributed.processes import barrier, rank
    from sailvit.evaluation.scoring.kinds import read_kind
    from sailvit.evaluation.suites.demo import SETS, write_suite
    from sailvit.evaluation.suites.planning import plan_suite, read_suite

    chosen = read_suite(suite)
    if chosen == "demo":
        folder = out / "demo"
        if rank() == 0:
            # Drawing all sets takes longer than a small model needs to answer one of them.
            write_suite(
                folder, count, sets=[each for each in SETS if not names or each.name in names]
            )
        barrier()
    if wrong := [each for each in kinds if "=" not in each]:
        raise DataError(f"--kind {wrong[0]} does not say of what; write NAME={wrong[0]}")
    given = {each.partition("=")[0]: read_kind(each.partition("=")[2]) for each in kinds}
    plan = plan_suite(chosen, folder, names=names, kinds=given)
    if not plan.sets:
        missing = ", ".join(each.name for each in plan.missing)
        raise DataError(
            f"{folder} has none of the suite's tables ({missing}); name the folder that holds"
            " them with --data, or try --suite demo, which needs no files"
        )
    return plan


def _tell_plan(console: Console, plan: Plan, folder: Path) -> None:
    from sailvit.evaluation.suites.planning import whereabouts

    for missing in plan.missing:
        console.print(whereabouts(missing, folder), highlight=False, soft_wrap=True)
    for each in plan.sets:
        if each.note:
            console.print(f"{each.questions.name}: {each.note}", highlight=False, soft_wrap=True)


def tell_scores(console: Console, models: Sequence[ModelScores], suite: str) -> None:
    """Print scores by set and model, what must be said of them, and how models differ."""
    from rich.table import Table

    table = Table(title="scores, with unparsed answers", title_justify="left")
    table.add_column("set")
    for model in models:
        table.add_column(model.label, justify="right", overflow="fold")
        table.add_column("unparsed", justify="right")
    for name in models[0].scores:
        cells = [cell for model in models for cell in score_cells(model.scores.get(name))]
        table.add_row(name, *cells)
    print_table(console, table)
    for line in _notes(models):
        console.print(f"  {line}", highlight=False)
    if suite == "opencompass":
        for model in models:
            _tell_average(console, model)
    _tell_comparison(console, models)


def _notes(models: Sequence[ModelScores]) -> list[str]:
    """What must be said beside the scores."""
    from sailvit.core.formatting import counted

    said = [line for name, score in models[0].scores.items() for line in notes_of(name, score)]
    for model in models:
        failed = {name: count for name, count in model.failed.items() if count}
        said += [
            f"{model.label}, {name}: {counted(count, 'question')} could not be asked"
            for name, count in failed.items()
        ]
    return said


def _tell_average(console: Console, model: ModelScores) -> None:
    from sailvit.evaluation.suites.average import refusal

    average = model.average
    number = refusal(average.missing) if average.value is None else f"average {average.value:.1f}"
    console.print(f"{model.label}: {number} ({average.said})", highlight=False, soft_wrap=True)


def _tell_comparison(console: Console, models: Sequence[ModelScores]) -> None:
    from rich.table import Table

    from sailvit.evaluation.suites.evaluated import comparison, tiles_note

    found = comparison(models)
    if not found:
        return
    pair = f"{models[1].label} against {models[0].label}"
    told = pair if len(models) == 2 else f"against {models[0].label}"
    table = Table(title=f"points {told}, question by question", title_justify="left")
    # Names of sets are looked for as they are written; other columns break at blanks instead.
    table.add_column("set", no_wrap=True)
    for name in (*(("model",) if len(models) > 2 else ()), "comes to"):
        table.add_column(name, overflow="fold")
    for name in ("points", "95 %", "won, lost", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=name in {"points", "p (Holm)"})
    for each in found:
        names = [each.questions, *([each.other] if len(models) > 2 else []), each.word]
        interval = f"{each.low:+.1f} {each.high:+.1f}"
        counts = f"{each.gained}, {each.lost}"
        points = f"{each.difference:+.1f}"
        table.add_row(*names, points, interval, counts, f"{each.corrected:.2g}")
    print_table(console, table)
    if note := tiles_note(models):
        console.print(f"  {note}", highlight=False, soft_wrap=True)

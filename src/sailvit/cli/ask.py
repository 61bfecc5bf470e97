"""`sailvit ask`: one question about images, or a file of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.cli.terminal.models import (
    Bf16,
    Device,
    Longest,
    Model,
    Remote,
    StageName,
    System,
    Temperature,
    TopP,
    loaded,
    sampling,
)

if TYPE_CHECKING:
    from sailvit.inference.asking import Asked
    from sailvit.inference.generation import Options
    from sailvit.inference.model import RunModel

_SHOWN = 20
"""Most errors that are printed; all of them are in the file beside the answers."""


def ask(  # noqa: PLR0913, PLR0917 - the options of a command
    model: Model,
    question: Annotated[str | None, typer.Argument(help="The question.")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="An image of the question; may be repeated."),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="JSONL of questions instead: question and image, or messages."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSONL of their answers; is added to.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of their image paths; the file's own.")
    ] = None,
    stage: StageName = None,
    system: System = None,
    max_new_tokens: Longest = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Most questions at a time.")] = 16,
    device: Device = None,
    bf16: Bf16 = False,
    trust_remote_code: Remote = False,
) -> None:
    """Ask a trained model about images: one question, or a file of them."""
    beside = (questions, out, images)
    _refuse_mixed(question, image or [], beside, system)
    if questions is not None and out is not None:
        _refuse_places(questions, out)
    asked = loaded(model, stage, device, bf16=bf16, remote=trust_remote_code)
    options = sampling(temperature, top_p)
    # Both or neither is given here; the type checker is told so by `or`.
    if questions is None or out is None:
        given = {"system": system, "max_new_tokens": max_new_tokens, **options}
        typer.echo(asked.generate(image or [], question or "", **given))
        return
    from sailvit.inference.generation import read_options

    chosen = read_options(max_new_tokens, options)
    _ask_file(asked, questions, out, chosen, images=images, batch=batch)


def _refuse_mixed(
    question: str | None,
    image: list[Path],
    beside: tuple[Path | None, ...],
    system: str | None,
) -> None:
    """DataError unless one question is asked or a file of them."""
    from sailvit.core.errors import DataError

    single = question is not None and not any(beside)
    several = None not in beside[:2] and (question, image, system) == (None, [], None)
    if not single and not several:
        raise DataError(
            "expected a question, with --image for each of its images; or --questions FILE with"
            " --out FILE, whose rows hold images and system texts"
        )


def _refuse_places(questions: Path, out: Path) -> None:
    """An error for files that cannot be read or written, before the model is loaded."""
    from sailvit.core.errors import DataError
    from sailvit.core.outputs import refuse_foreign_file

    if not questions.is_file():
        raise DataError(f"{questions} is not a file; expected questions as JSON lines")
    # Answers of other questions are refused by their keys, which the model is part of.
    refuse_foreign_file(out, overwrite=True)


def _ask_file(
    model: RunModel,
    questions: Path,
    out: Path,
    options: Options,
    *,
    images: Path | None,
    batch: int,
) -> None:
    from rich.console import Console

    from sailvit.cli.terminal.steps import steps_shown
    from sailvit.inference.asking import answer_file

    console = Console(markup=False)
    with steps_shown(console) as shown:
        done = answer_file(
            model,
            questions,
            out,
            options,
            identity=model.identity,
            images=images,
            batch=batch,
            seen=lambda at, total: shown("questions", at, total),
        )
    _tell(done, out)
    if done.errors:
        raise typer.Exit(1)


def _tell(done: Asked, out: Path) -> None:
    from sailvit.core.formatting import count, counted

    known = f", {count(done.known)} had been before" if done.known else ""
    typer.echo(f"{counted(done.answered, 'question')} answered{known}: {out}")
    for place, why in done.errors[:_SHOWN]:
        typer.echo(f"  {place}: {why}", err=True)
    # On the other stream, so that a script reads the answers' line alone.
    if done.errors:
        typer.echo(
            f"{counted(len(done.errors), 'question')} could not be asked; all are listed in"
            f" {out}.errors.jsonl, and the same command asks them again",
            err=True,
        )

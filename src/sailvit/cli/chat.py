"""`sailvit chat`: a dialogue with a model in the terminal, or in the browser."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from sailvit.cli.terminal.ports import refuse_taken

if TYPE_CHECKING:
    from sailvit.inference.dialogue import Dialogue

_HELP = """/image PATH  show an image with the next question; several times for several images
/clear       forget what was said and shown
/quit        leave, as Ctrl-D does; Ctrl-C ends an answer"""


def chat(  # noqa: PLR0913, PLR0917 - the options of a command
    model: Model,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="An image of the first question; may be repeated."),
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Chat in the browser instead.")] = False,
    port: Annotated[int, typer.Option(help="Port of the page, with --web.")] = 7860,
    stage: StageName = None,
    system: System = None,
    max_new_tokens: Longest = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    device: Device = None,
    bf16: Bf16 = False,
    trust_remote_code: Remote = False,
) -> None:
    """Talk with a trained model about images, here or with --web in the browser."""
    # Before the weights are loaded, which takes longer than to find an extra missing.
    if web:
        from sailvit.inference.web.page import refuse_without_gradio

        refuse_without_gradio()
        refuse_taken("127.0.0.1", port)
    asked = loaded(model, stage, device, bf16=bf16, remote=trust_remote_code)
    given: dict[str, Any] = {"system": system, "max_new_tokens": max_new_tokens}
    given["options"] = sampling(temperature, top_p)
    if web:
        from sailvit.inference.web.page import launch_options, make_page

        typer.echo(f"http://127.0.0.1:{port}  (Ctrl-C ends it)")
        make_page(asked, name=model.resolve().name, **given).launch(**launch_options(port))
        return
    from sailvit.inference.dialogue import Dialogue

    talk = Dialogue(asked, **given)
    for path in image or ():
        _attach(talk, str(path))
    typer.echo(f"{model}: ask, or /help")
    while (line := _line()) is not None:
        if not _answered(talk, line.strip()):
            break


def _line() -> str | None:
    """The next line; None at the end of input."""
    try:
        # No prompt where questions are piped in: nobody waits for it.
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        typer.echo()
        return None


def _answered(talk: Dialogue, line: str) -> bool:
    """Whether to go on after a command or a question."""
    command, _, rest = line.partition(" ")
    if command in ("/quit", "/exit"):
        return False
    if command == "/image" and rest.strip():
        _attach(talk, rest)
    elif command == "/clear":
        talk.clear()
        typer.echo("forgotten: what was said and shown")
    elif command.startswith("/"):
        typer.echo(_HELP)
    elif line:
        _show(talk, line)
    return True


def _attach(talk: Dialogue, given: str) -> None:
    from sailvit.core.errors import DataError

    # As shells and file managers write a path that is dragged into the window.
    path = Path(given.strip().strip("'\"").replace("\\ ", " ")).expanduser()
    try:
        width, height = talk.attach(path)
    except DataError as error:
        typer.echo(f"error: {error}", err=True)
        return
    typer.echo(f"{path.name}, {width} x {height}: with the next question")


def _show(talk: Dialogue, question: str) -> None:
    """Print an answer as it is made; Ctrl-C ends it."""
    from sailvit.core.errors import SailvitError
    from sailvit.inference.dialogue import printable

    try:
        # Closed, also by Ctrl-C, as the dialogue keeps what was said until then as the answer.
        with closing(talk.ask(question)) as pieces:
            for piece in pieces:
                typer.echo(printable(piece), nl=False)
                sys.stdout.flush()
    except KeyboardInterrupt:
        typer.echo(" (ended)", nl=False)
    except SailvitError as error:
        typer.echo(f"error: {error}", err=True, nl=False)
    typer.echo()

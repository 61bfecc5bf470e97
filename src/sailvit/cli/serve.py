"""`sailvit serve`: a model behind OpenAI's chat API."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from sailvit.cli.terminal.models import Bf16, Device, Model, Remote, StageName, loaded
from sailvit.cli.terminal.ports import refuse_taken

_MIB = 1 << 20


Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")]
Name = Annotated[str | None, typer.Option(help="The model's name in requests; its folder's.")]
Media = Annotated[
    Path | None, typer.Option(help="Folder whose images requests may name by file://.")
]
Key = Annotated[
    str | None,
    typer.Option("--key-variable", help="Environment variable that holds the API key."),
]
Prompt = Annotated[int, typer.Option(min=1, help="Most tokens of a prompt, images included.")]


def serve(  # noqa: PLR0913, PLR0917 - the options of a command
    model: Model,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
    name: Name = None,
    media: Media = None,
    key_variable: Key = None,
    batch: Annotated[int, typer.Option(min=1, help="Most answers made at a time.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 2048,
    max_prompt_tokens: Prompt = 16_384,
    max_images: Annotated[int, typer.Option(min=0, help="Most images of a request.")] = 16,
    max_pixels: Annotated[int, typer.Option(min=1, help="Most pixels of an image.")] = 40_000_000,
    max_body: Annotated[int, typer.Option(min=1, help="Most MiB of a request.")] = 20,
    max_open: Annotated[int, typer.Option(min=1, help="Most requests that are open.")] = 256,
    stage: StageName = None,
    device: Device = None,
    bf16: Bf16 = False,
    trust_remote_code: Remote = False,
) -> None:
    """Serve a trained model by OpenAI's chat API, to this machine unless --host says more."""
    # All that can be refused is refused before the weights are loaded.
    make_app, uvicorn = _server()
    from sailvit.inference.serving.limits import Limits

    _refuse_no_folder(media)
    refuse_taken(host, port)
    limits = Limits(
        body=max_body * _MIB,
        images=max_images,
        pixels=max_pixels,
        prompt_tokens=max_prompt_tokens,
        answer_tokens=max_new_tokens,
        batch=batch,
        open_requests=max_open,
        media=media,
    )
    key = _key(key_variable)
    asked = loaded(model, stage, device, bf16=bf16, remote=trust_remote_code)
    called = name or model.resolve().name
    # A server for this machine alone refuses other host names: a page in the browser could have
    # its own name resolved to this address.
    local = host in ("127.0.0.1", "::1", "localhost")
    app = make_app(asked, called, limits, key=key, local=local)
    if not local and key is None:
        typer.echo("anybody who reaches this address can ask; --key-variable sets a key", err=True)
    _run(uvicorn, app, host, port, called)


def _run(uvicorn: Any, app: Any, host: str, port: int, called: str) -> None:
    """Answer at an address until the process is told to stop, and say where."""
    # Without a limit uvicorn waits for every open answer when it is told to stop.
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5
    )
    # Listening before it says so: whoever reads the line may ask, and is answered once all is up.
    listening = config.bind_socket()
    listening.listen(config.backlog)
    typer.echo(f"{called} at http://{host}:{port}/v1")
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def _server() -> tuple[Any, Any]:
    """What makes the application, and the library that runs it; RunError if the extra is not
    installed.
    """
    from sailvit.core.errors import RunError

    try:
        import uvicorn

        from sailvit.inference.serving.app import make_app
    except ModuleNotFoundError as error:
        raise RunError(
            f"serving needs {error.name}, which is not installed; pip install 'sailvit[serve]'"
        ) from error
    return make_app, uvicorn


def _refuse_no_folder(media: Path | None) -> None:
    from sailvit.core.errors import RunError

    if media is not None and not media.is_dir():
        raise RunError(f"--media {media} is no folder; name the folder that holds the images")


def _key(variable: str | None) -> str | None:
    """The API key in an environment variable; None when no variable is named."""
    from sailvit.core.errors import RunError

    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise RunError(f"{variable} is not set or empty; expected the API key of this server")
    return key

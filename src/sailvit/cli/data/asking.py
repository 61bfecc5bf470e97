"""What `sailvit data judge` and `sailvit data qa` share: which model is asked, and what it has
cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.core.formatting import counted

if TYPE_CHECKING:
    from rich.console import Console

    from sailvit.core.records import Record
    from sailvit.dataprep.annotate.cache import ReplyCache
    from sailvit.dataprep.annotate.replies import Responder

Source = Annotated[str, typer.Argument(metavar="SRC", help="File, folder, glob or URL of data.")]
Out = Annotated[Path, typer.Option("--out", help="JSONL file to write.")]
Url = Annotated[
    str | None,
    typer.Option("--endpoint", help="Base address of an OpenAI-style server, up to /v1."),
]
Model = Annotated[str | None, typer.Option("--model", help="The model's name on that server.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--key-variable",
        help="Environment variable that holds the server's key, when it wants one.",
    ),
]
Mllm = Annotated[
    Path | None,
    typer.Option("--mllm", help="Run folder whose model is asked, instead of a server."),
]
StageName = Annotated[
    str | None, typer.Option("--stage", help="Stage of that run; left out, the last.")
]
Records = Annotated[
    int | None, typer.Option("--limit", min=1, help="Ask about this many records from the start.")
]
Concurrency = Annotated[
    int, typer.Option(min=1, help="Requests under way at a time; records per batch with --mllm.")
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds after which a request is given up.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="File of replies that are not asked for again; left out, <out>.cache beside it."
    ),
]


@dataclass(frozen=True)
class Choice:
    """Which model is asked, and how."""

    url: str | None
    """Base address of the server; None: a run's model is asked."""
    model: str | None
    """The model's name on the server."""
    key_variable: str | None
    """Environment variable that holds the server's key; None: no key is sent."""
    mllm: Path | None
    """Run folder whose model is asked; None: a server is asked."""
    stage: str | None
    """Stage of the run; None: the last."""
    concurrency: int
    """Requests at a time, or records per batch."""
    timeout: float
    """Seconds after which a request is given up."""
    longest: int
    """Most tokens of an answer."""

    def responder(self, cache: ReplyCache) -> Responder:
        """The model, ready to be asked."""
        from sailvit.core.errors import DataError
        from sailvit.dataprep.annotate.client import Endpoint
        from sailvit.dataprep.annotate.local import LocalModel
        from sailvit.dataprep.annotate.wire import EndpointConfig

        # One model and no other: replies of two would lie under the same name.
        if self.mllm is not None and self.url is None:
            answer, identity = load_answerer(self.mllm, self.stage, self.longest)
            return LocalModel(answer, identity, cache=cache, batch=self.concurrency)
        if self.url is None or self.model is None or self.mllm is not None:
            raise DataError(
                "no model to ask, or two; give --endpoint URL with --model NAME, or --mllm RUN"
            )
        if not self.url.startswith(("http://", "https://")):
            raise DataError(
                f"the endpoint is {self.url}; expected an address that begins with http:// or https://"
            )
        config = EndpointConfig(
            url=self.url,
            model=self.model,
            key_variable=self.key_variable,
            concurrency=self.concurrency,
            timeout=self.timeout,
            longest=self.longest,
        )
        return Endpoint(config, cache)


def refuse_same(source: str, out: Path) -> None:
    """Raise RunError if the output would overwrite the data that are read."""
    from sailvit.core.errors import RunError

    if Path(source).resolve() == out.resolve():
        raise RunError(f"{out} is what is read; give another file with --out")


@contextmanager
def asking(
    choice: Choice, cache: Path, console: Console, count: int
) -> Iterator[tuple[Responder, Callable[[], None]]]:
    """The chosen model, and a function to call after each of `count` records, which moves the
    bar.

    The number of requests and tokens is printed at the end, also after an error.
    """
    from sailvit.cli.terminal.steps import steps_shown
    from sailvit.dataprep.annotate.cache import ReplyCache

    replies, done = ReplyCache(cache), iter(range(1, count + 1))
    try:
        responder = choice.responder(replies)
        try:
            with steps_shown(console) as shown:
                yield responder, lambda: shown("records", next(done), count)
        finally:
            usage = responder.usage
            console.print(
                f"{counted(usage.requests, 'request')} ({usage.repeats:,} repeated),"
                f" {counted(usage.remembered, 'reply', 'replies')} from {cache},"
                f" {usage.failed:,} without reply; {counted(usage.prompt_tokens, 'token')} sent,"
                f" {usage.answer_tokens:,} received",
                highlight=False,
                soft_wrap=True,
            )
    finally:
        replies.close()


def load_answerer(
    run: Path, stage: str | None, longest: int
) -> tuple[Callable[[Sequence[Record]], list[str]], str]:
    """A function that answers records with a run's model, and a key that no other model has."""
    import hashlib

    from sailvit.api.models import find_stage, load_bundle
    from sailvit.inference.answers import answer
    from sailvit.models.loading.quiet import quiet_libraries

    quiet_libraries()
    found = find_stage(run, stage)
    bundle = load_bundle(found.saved)
    # Unknown options are taken, so that the error names the command and not an option.
    # A run that is trained anew in the same folder is another model: its manifest tells.
    manifest = hashlib.blake2b(found.run.manifest.read_bytes(), digest_size=8).hexdigest()
    identity = f"{run.resolve()} {found.name} {manifest} {longest}"
    return lambda records: answer(bundle, records, batch=len(records), longest=longest), identity

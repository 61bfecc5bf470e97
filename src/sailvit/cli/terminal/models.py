"""Options of the commands that ask a model, and loading it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sailvit.inference.model import RunModel

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A run, the folder of one of its stages, an export, or a released model's folder.",
    ),
]
StageName = Annotated[str | None, typer.Option("--stage", help="Stage of the run; the last one.")]
System = Annotated[str | None, typer.Option(help="Text of the system turn.")]
Longest = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Most tokens of an answer.")]
Temperature = Annotated[
    float, typer.Option(min=0, help="Sampling's temperature; 0: the most likely tokens.")
]
TopP = Annotated[
    float, typer.Option("--top-p", min=0, max=1, help="Share of the likeliest tokens to draw from.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:1; the first GPU, else the CPU.")
]
Bf16 = Annotated[
    bool, typer.Option("--bf16", help="Keep the weights in bf16: half the memory of float32.")
]
Remote = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let parts run Python code beside their weights."),
]


def loaded(
    model: Path, stage: str | None, device: str | None, *, bf16: bool, remote: bool
) -> RunModel:
    """The model, ready for questions."""
    from sailvit.models.loading.quiet import quiet_libraries

    # Before they are imported, as it sets an environment variable that tokenizers reads.
    quiet_libraries()
    import torch

    from sailvit.api.models import load_run

    dtype = torch.bfloat16 if bf16 else None
    return load_run(model, stage, device=device, dtype=dtype, trust_remote_code=remote)


def sampling(temperature: float, top_p: float) -> dict[str, Any]:
    """Options of generation for a temperature; none for 0, which is greedy."""
    if temperature == 0:
        return {}
    # top_k 0, as transformers otherwise draws from the 50 likeliest tokens, whatever top_p is.
    return {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}

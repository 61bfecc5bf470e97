"""`sailvit probe TOWER...`: what towers know by themselves, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.cli.terminal.models import Device, Remote

if TYPE_CHECKING:
    from sailvit.evaluation.probes.running import Probing

Towers = Annotated[
    list[str],
    typer.Argument(
        metavar="TOWER...", help="Runs, stages, towers' folders or hub ids; or NAME=TOWER."
    ),
]
Data = Annotated[
    list[Path],
    typer.Option(
        metavar="PATH",
        help="Folder or file of images, or sailvit:world; may be repeated.",
        show_default=False,
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--probe", metavar="NAME", help="Only this probe; may be repeated."),
]
Layers = Annotated[str, typer.Option(help="all, last, or numbers such as -1,6,12.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training set.")]
Neighbours = Annotated[int, typer.Option(min=1, help="k of k-NN.")]
Limit = Annotated[int | None, typer.Option(min=2, help="Images of each set.")]
Batch = Annotated[int, typer.Option(min=1, help="Images that a tower takes at once.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads that decode images.")]
Cache = Annotated[Path | None, typer.Option(help="Folder of features; $SAILVIT_CACHE/features.")]
Text = Annotated[
    str | None, typer.Option(help="Dual encoder of the towers' base, for its text tower.")
]
Prompts = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="TEXT", help="Sentence with {} for a class; may be repeated."),
]
ClassNamesFile = Annotated[
    Path | None, typer.Option("--class-names", help="JSON: names for people by class.")
]


def probe(  # noqa: PLR0913, PLR0917 - the options of a command
    towers: Towers,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the numbers.")] = Path("probe"),
    names: Names = None,
    layers: Layers = "all",
    epochs: Epochs = 10,
    neighbours: Neighbours = 20,
    limit: Limit = None,
    batch: Batch = 64,
    threads: Threads = None,
    text: Text = None,
    prompts: Prompts = None,
    class_names: ClassNamesFile = None,
    cache: Cache = None,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 0,
    device: Device = None,
    remote: Remote = False,
) -> None:
    """Probe frozen towers at every layer, base against refined.

    Images in folders of their classes: recognition, and zero-shot with
    --text. Images with label maps: segmentation. Images alone:
    correspondence of two views. Images with captions: retrieval.

    Features are computed once, for all layers in one pass, and kept; start
    the same command again to go on. With torchrun several processes share
    the work.
    """
    from sailvit.data.caches import cache_folder
    from sailvit.evaluation.probes.matching import PROMPT, read_class_names, split_prompts
    from sailvit.evaluation.probes.running import Probing
    from sailvit.models.loading.quiet import quiet_libraries

    quiet_libraries()
    how = Probing(
        cache or cache_folder("features"),
        probes=tuple(names or ()),
        layers=layers,
        epochs=epochs,
        neighbours=neighbours,
        batch=batch,
        limit=limit,
        seed=seed,
        text=text,
        prompts=tuple(split_prompts(prompts or [PROMPT])),
        names={} if class_names is None else read_class_names(class_names),
        **({} if threads is None else {"threads": threads}),
    )
    _run(towers, data, how, out, device, remote=remote)


def _run(
    towers: Sequence[str],
    data: Sequence[Path],
    how: Probing,
    out: Path,
    device: str | None,
    *,
    remote: bool,
) -> None:
    from rich.console import Console

    from sailvit.api.probing import named_towers
    from sailvit.api.probing import probe as probe_towers
    from sailvit.cli.terminal.probed import tell_probes
    from sailvit.cli.terminal.steps import steps_shown
    from sailvit.distributed.processes import process_group, rank

    with process_group():
        console = Console(quiet=rank() != 0, markup=False)
        with steps_shown(console) as shown:
            report = probe_towers(
                named_towers(towers),
                data,
                how,
                out=out,
                device=device,
                trust_remote_code=remote,
                seen=shown,
            )
        tell_probes(console, report)
        console.print(f"All numbers: {out / 'probe.json'}", highlight=False, soft_wrap=True)
        if rank() == 0:
            # Matplotlib is imported when there is something to draw.
            from sailvit.report.evaluation.page import write_evaluation_report

            page = write_evaluation_report(out)
            console.print(f"Page: {page}", highlight=False, soft_wrap=True)

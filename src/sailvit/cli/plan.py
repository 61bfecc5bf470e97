"""`sailvit plan RECIPE`: what a recipe will do and cost, and what is wrong with it, without
training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.cli.terminal.options import RecipeName, Set
from sailvit.cli.terminal.tables import print_table
from sailvit.core.formatting import MISSING, counted, duration, flop_rate, short, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sailvit.core.recipe import Precision, Recipe
    from sailvit.preflight.bench import StageSpeed
    from sailvit.preflight.plan import Plan
    from sailvit.preflight.storage import Storage


def plan(
    recipe: RecipeName,
    overrides: Set = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0, help="Peak of one device in TFLOP/s; left out, this machine's is measured."
        ),
    ] = None,
    mfu: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the peak that training reaches.")
    ] = 0.4,
    devices: Annotated[int, typer.Option(min=1, help="Devices that train together.")] = 1,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="Load the weights too, and prove how packs are read."),
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time steps of every stage, ten seconds in all.")
    ] = False,
) -> None:
    """Show a recipe's parts, tokens, memory and time; exit with 1 if it has problems."""
    # torch and transformers take seconds to import; `sailvit --help` should not wait for them.
    from rich.console import Console

    from sailvit.preflight.plan import plan as make_plan
    from sailvit.recipes.loader import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    # A peak that is given is another device's, whose fastest precision cannot be measured here.
    if tflops is None:
        loaded = _for_this_device(loaded)
    made = make_plan(loaded)
    console = Console()
    # Problems first: with some of them there are no tables at all.
    _complain(console, made)
    if made.parameters:
        speeds = _measured(console, loaded, made, mfu) if measure else {}
        peak, given = _peak(loaded.precision, tflops)
        _show(console, made, peak * mfu * devices, _times(made, speeds, devices))
        used = f"{counted(devices, 'device')} of {flop_rate(peak)} ({given})"
        console.print(f"Time: {used} at MFU {mfu:g}.", highlight=False)
        _tell_basis(console, speeds, devices)
    proved = not weights or _prove(console, loaded)
    if made.problems:
        console.print(f"{counted(len(made.problems), 'problem')}, listed at the top")
    if made.problems or not proved:
        raise typer.Exit(1)


def _prove(console: Console, recipe: Recipe) -> bool:
    """Whether the recipe's own weights load and keep the samples of a pack apart; says how."""
    from rich.markup import escape

    from sailvit.core.errors import ModelError
    from sailvit.models.loading.build import build

    try:
        model = build(recipe.model, recipe.seed, recipe.parallel.packing).mllm
    except ModelError as error:
        console.print(f"[red]problem[/red] {escape(str(error))}", highlight=False)
        return False
    console.print(escape(str(model.chosen)), highlight=False)
    return True


def _measured(console: Console, recipe: Recipe, made: Plan, mfu: float) -> dict[str, StageSpeed]:
    """The speed of every stage in some seconds of training; empty, with the reason on screen,
    where that cannot be had.
    """
    from rich.markup import escape

    from sailvit.core.errors import SailvitError
    from sailvit.distributed.processes import my_device
    from sailvit.models.loading.quiet import quiet_libraries
    from sailvit.preflight.bench import quick_speeds

    if made.problems:
        console.print("[yellow]note[/yellow] nothing is measured before the problems are mended")
        return {}
    quiet_libraries()
    # This device's own peak, also where a plan for another one is asked for.
    speed = mfu * _peak(recipe.precision)[0]
    try:
        with console.status("training every stage for some seconds"):
            return quick_speeds(recipe, made, speed, device=my_device())
    except SailvitError as error:
        console.print(f"[yellow]note[/yellow] not measured: {escape(str(error))}", highlight=False)
        return {}


def _times(
    made: Plan, speeds: Mapping[str, StageSpeed], devices: int
) -> dict[str, float | None] | None:
    """Seconds that each stage takes on `devices` such devices; None where none was measured."""
    if not speeds:
        return None
    # N devices count as N times as fast: what they lose to communication is not known here.
    return {s.name: s.seconds(speeds[s.name].flops_per_s * devices) for s in made.stages}


def _tell_basis(console: Console, speeds: Mapping[str, StageSpeed], devices: int) -> None:
    """Print what the measured times rest on; nothing where none was measured."""
    if speeds:
        steps = counted(sum(speed.steps for speed in speeds.values()), "step")
        reached = ", ".join(f"{name} {speed.mfu:.2g}" for name, speed in speeds.items())
        console.print(
            f"Measured: {steps} here with random weights, for {counted(devices, 'device')}; MFU {reached}."
            " Checkpoints, monitoring and evaluation come on top.",
            highlight=False,
        )


def _show(
    console: Console, made: Plan, speed: float, measured: Mapping[str, float | None] | None
) -> None:
    print_table(console, parts_table(made))
    console.print(f"{_images(made)}\n")
    print_table(console, stages_table(made, speed, measured))
    for basis in dict.fromkeys(stage.sample.basis for stage in made.stages):
        console.print(f"Tokens per sample: {basis}.")
    console.print("Memory is per device, unsharded.")
    if made.storage is not None:
        console.print(storage_line(made.storage), highlight=False)
    if made.exports:
        console.print(f"Exports within reach (sailvit export --to): {', '.join(made.exports)}.")


def _images(made: Plan) -> str:
    """What an image costs, as a sentence."""
    if made.native:
        side = made.tile_size
        return (
            f"Images keep their aspect ratio: {side} x {side} px are a visual token, and an image is"
            f" at most {counted(made.most_tiles, 'token')}."
        )
    return (
        f"A tile of {made.tile_size} px is {made.tokens_per_tile} visual tokens; an image is at most"
        f" {counted(made.most_tiles, 'tile')},"
        f" {counted(made.most_tiles * made.tokens_per_tile, 'token')}."
    )


def _complain(console: Console, made: Plan) -> None:
    from rich.markup import escape

    marked = [("[red]problem[/red]", made.problems), ("[yellow]note[/yellow]", made.remarks)]
    for mark, texts in marked:
        for text in texts:
            console.print(f"{mark} {escape(text)}", highlight=False, soft_wrap=True)
    if made.problems or made.remarks:
        console.print()


def parts_table(made: Plan) -> Table:
    """Parts against stages: how many parameters there are and how many train."""
    from rich.table import Table

    table = Table(title=f"{made.name}: parameters, and how many train", title_justify="left")
    table.add_column("part")
    # A heading folds where there are many stages; numbers never do.
    for heading in ("all", *(f"in {stage.name}" for stage in made.stages)):
        table.add_column(heading, justify="right", overflow="fold")
    for part, count in made.parameters.items():
        trained = [stage.trains.get(part, 0) for stage in made.stages]
        table.add_row(part, short(count), *(short(t) if t else "frozen" for t in trained))
    return table


def stages_table(
    made: Plan, speed: float, measured: Mapping[str, float | None] | None = None
) -> Table:
    """One row per stage: samples, tokens, steps, FLOPs, memory and time at `speed` FLOP/s.

    Where `measured` gives seconds by stage, these stand beside that time, in place of the FLOPs.
    """
    from rich.table import Table

    # Two short words stand one above the other, so that the table fits 80 columns.
    headings = ["samples", "tokens/\nsample", "tokens", "steps", "FLOPs", "memory", "time"]
    if measured is not None:
        headings[4:] = ["memory", "time,\nestimated", "time,\nmeasured"]
    table = Table(padding=(0, 0, 0, 1))
    table.add_column("stage", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in made.stages:
        table.add_row(
            stage.name,
            short(stage.samples),
            f"{stage.sample.tokens:,.0f}",
            short(stage.tokens),
            MISSING if stage.steps is None else f"{stage.steps:,}",
            *_costs(stage.flops, size(stage.memory.total), speed, measured, stage.name),
        )
    if made.flops is not None and len(made.stages) > 1:
        whole = measured and {"all": sum(seconds or 0 for seconds in measured.values())}
        table.add_row("all", *[""] * 4, *_costs(made.flops, "", speed, whole, "all"))
    return table


def _costs(
    flops: float | None,
    memory: str,
    speed: float,
    measured: Mapping[str, float | None] | None,
    name: str,
) -> tuple[str, str, str]:
    """The last three cells of a row."""
    estimated = duration(None if flops is None else flops / speed)
    if measured is not None:
        return memory, estimated, duration(measured[name])
    return MISSING if flops is None else f"{flops:.2e}", memory, estimated


def storage_line(storage: Storage) -> str:
    """What states and parts take on disk, and a save in memory, as a sentence."""
    return (
        f"Disk: {size(storage.disk)}: up to {storage.states} states of {size(storage.state)}, with the one in writing,"
        f" and parts of {size(storage.parts)}. Host memory of a save: none on the CPU, as it streams; on an accelerator"
        f" a copy of {size(storage.copy)} where there is room for two, else none, and training waits."
    )


def _for_this_device(recipe: Recipe) -> Recipe:
    from sailvit.distributed.processes import my_device
    from sailvit.training.stages.precision import settled

    return settled(recipe, my_device())


def _peak(precision: Precision, tflops: float | None = None) -> tuple[float, str]:
    """FLOP/s of one device, and where the number comes from."""
    from sailvit.distributed.processes import my_device
    from sailvit.models.measures.peak import device_peak

    if tflops:
        return tflops * 1e12, "given"
    return device_peak(my_device(), precision), "measured here"

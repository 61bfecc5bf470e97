"""Probes of towers, side by side: files, and what a notebook calls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sailvit.api.evaluation import labels_of
from sailvit.api.models import find_model, load_bundle
from sailvit.api.towers import load_tower
from sailvit.core.errors import DataError, RunError
from sailvit.core.outputs import refuse_foreign_folder
from sailvit.core.recipe import PARTS
from sailvit.core.run import write_json
from sailvit.distributed.processes import barrier, rank
from sailvit.evaluation.probes.differences import Difference, differences
from sailvit.evaluation.probes.drawn import WORLD, world_captions, write_world
from sailvit.evaluation.probes.matching import ConnectorSpace, Encoder
from sailvit.evaluation.probes.results import Outcome
from sailvit.evaluation.probes.running import (
    PROBES,
    TEXTUAL,
    Probed,
    Probing,
    Seen,
    Sets,
    at_layer,
    best_layers,
    open_sets,
    probe_tower,
)
from sailvit.evaluation.probes.sets.captions import CaptionSet
from sailvit.report.evaluation.reading import is_evaluation

PROBE_FILE = "probe.json"
"""All numbers, by which the folder of a probe is known."""
WORLD_SIZE = (2000, 500)
"""Pictures of the drawn world to train heads on, and to test them on, of each kind."""
COMPARISON_FILE = "probe_comparison.json"
"""Differences between towers, best layers, and what was left out."""


@dataclass(frozen=True)
class ProbeReport:
    """What the probes of several towers found."""

    towers: Mapping[str, Probed]
    """By the towers' names, in the order given."""
    notes: tuple[str, ...]
    """What should be told of the data."""
    differences: tuple[Difference, ...]
    """Every tower against the first, each at its own layer."""

    def own(self, tower: str) -> list[Outcome]:
        """A tower's outcomes at its own layer."""
        probed = self.towers[tower]
        return at_layer(probed.outcomes, probed.own_layer)

    def rows(self) -> list[dict[str, Any]]:
        """The value of probe.json."""
        return [each.row(name) for name, probed in self.towers.items() for each in probed.outcomes]


def named_towers(given: Sequence[str]) -> dict[str, str]:
    """Towers by name: `NAME=TOWER`, or a tower whose name is the end of its path.

    Raises:
        DataError: two have one name.
    """
    split = [_named(each) for each in given]
    plain = labels_of([Path(tower) for name, tower in split if not name])
    free = iter(plain)
    found = {name or next(free): tower for name, tower in split}
    if len(found) != len(given):
        raise DataError("two of the towers have one name; give others as NAME=TOWER")
    return found


def probe(
    towers: Mapping[str, str],
    data: Sequence[Path],
    how: Probing,
    *,
    out: Path | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    seen: Seen = lambda what, done, total: None,
) -> ProbeReport:
    """Every tower through every probe that the data allow; `out` gets the numbers.

    Args:
        towers: Towers by name: runs, stages, folders, or hub ids.
        data: Data, each of one kind; `sailvit:world` is drawn.
        how: Probes, layers, and how heads are trained.
        out: Folder of probe.json and probe_comparison.json; None: nothing is written.
        device: Device; None: the first GPU, else the CPU.
        trust_remote_code: Whether a tower may run Python code that lies beside its weights.
        seen: Takes what is done, how much of it, and how much there is.

    Raises:
        DataError: the data are of no kind that a probe can use, or too few.
        ModelError: a tower cannot be loaded, or does not have a layer.
    """
    # In the folder of an evaluation they become part of its page.
    if out is not None and not is_evaluation(out):
        refuse_foreign_folder(out, PROBE_FILE)
    refuse_unknown(how)
    sets = _opened(data, how)
    found = {}
    for name, source in towers.items():
        # One tower after the other, so that memory holds one.
        loaded = load_tower(source, device=device, trust_remote_code=trust_remote_code)
        found[name] = probe_tower(
            loaded.tower,
            sets,
            how,
            space=_space(source, sets, device, remote=trust_remote_code),
            seen=lambda what, *at, name=name: seen(f"{name}, {what}", *at),
        )
    report = _report(found, tuple(note for each in sets for note in each.notes), how.seed)
    if out is not None and rank() == 0:
        write_json(out / PROBE_FILE, report.rows())
        write_json(out / COMPARISON_FILE, _comparison(report))
    barrier()
    return report


def refuse_unknown(how: Probing) -> None:
    """DataError for a probe that there is none of, or that lacks what it needs."""
    known = [each for kind in PROBES.values() for each in kind]
    if unknown := [each for each in how.probes if each not in known]:
        raise DataError(f"there is no probe {unknown[0]}; there are {', '.join(known)}")
    if how.text is None and (lacking := [each for each in how.probes if each in TEXTUAL]):
        raise DataError(
            f"{lacking[0]} needs the text tower that the towers' base was trained with; name its"
            " dual encoder with --text, such as google/siglip-base-patch16-224"
        )


def _space(
    source: str, sets: Sequence[Sets], device: str | None, *, remote: bool
) -> Encoder | None:
    """The whole model of a run, where captions ask for it; None for a tower alone."""
    if not any(isinstance(each, CaptionSet) for each in sets):
        return None
    try:
        found = find_model(source)
    except RunError:
        return None
    if not all((found.parts / part).is_dir() for part in PARTS):
        return None
    return ConnectorSpace(load_bundle(found, device=device, trust_remote_code=remote))


def _opened(data: Sequence[Path], how: Probing) -> list[Sets]:
    found: list[Sets] = []
    for path in data:
        if str(path) == WORLD:
            if rank() == 0:
                write_world(how.cache, *WORLD_SIZE, how.seed)
            barrier()
            found += [
                open_sets(each, how) for each in write_world(how.cache, *WORLD_SIZE, how.seed)
            ]
            found.append(world_captions(min(how.limit or WORLD_SIZE[1], WORLD_SIZE[1]), how.seed))
        else:
            found.append(open_sets(path, how))
    return found


def _report(found: Mapping[str, Probed], notes: tuple[str, ...], seed: int) -> ProbeReport:
    if not any(each.outcomes for each in found.values()):
        raise DataError(
            "no probe that was asked for can use these data; see `sailvit probe --help`"
        )
    own = {name: at_layer(each.outcomes, each.own_layer) for name, each in found.items()}
    return ProbeReport(found, notes, tuple(differences(own, seed)))


def _comparison(report: ProbeReport) -> dict[str, Any]:
    return {
        "differences": [asdict(each) for each in report.differences],
        "towers": {
            name: {
                "own layer": each.own_layer,
                "best layers": best_layers(each.outcomes),
                "left out": each.left_out,
            }
            for name, each in report.towers.items()
        },
        "notes": list(report.notes),
    }


def _named(given: str) -> tuple[str, str]:
    """Name and tower of an argument; an empty name where it gives none."""
    name, mark, tower = given.partition("=")
    # A path may hold such a sign too.
    if mark and name and os.sep not in name and not Path(given).exists():
        return name, tower
    return "", given

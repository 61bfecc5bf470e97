"""What a study will do and cost, before anything runs."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sailvit.api.study.alike import alike_levels
from sailvit.api.study.cell_files import file_of, is_done
from sailvit.api.study.lineage import Lineage, PlannedCell, Training
from sailvit.core.formatting import counted, duration
from sailvit.core.ownership import manifest_of
from sailvit.core.recipe import Precision, Recipe
from sailvit.core.study.folder import StudyFolder


@dataclass(frozen=True)
class Row:
    """The trainings of one stage of one step."""

    name: str
    """Step and stage."""
    needed: int
    """Trainings of it that the cells need."""
    uses: int
    """Times that cells use one."""
    done: int
    """Trainings that are there."""
    samples: int
    """Records that the missing ones draw."""
    flops: float
    """FLOPs of the missing ones."""
    seconds: float | None
    """Time of the missing ones in one process each, at the speed of those that are there; None
    where none is."""
    memory: float
    """Estimated memory of the largest, in bytes."""


@dataclass(frozen=True)
class StudyPlan:
    """The plan of a study."""

    cells: int
    """Cells of this shard."""
    done: int
    """Of them, cells that are there."""
    rows: tuple[Row, ...]
    """Its trainings."""
    alone: int
    """Trainings if cells shared none."""
    precision: Precision
    """That of all trainings; fp32 where they differ, which never promises too short a time."""
    alike: tuple[str, ...] = ()
    """A sentence for every two levels that make the same trainings."""

    @property
    def needed(self) -> int:
        """Trainings that the cells need."""
        return sum(row.needed for row in self.rows)

    @property
    def flops(self) -> float:
        """FLOPs that are missing."""
        return sum(row.flops for row in self.rows)

    def seconds(self, speed: float) -> float:
        """Time of all missing trainings one after the other; at `speed` FLOP/s where none of a
        row is there yet.
        """
        return sum(row.flops / speed if row.seconds is None else row.seconds for row in self.rows)

    @property
    def memory(self) -> float:
        """Estimated memory of the largest training, in bytes."""
        return max((row.memory for row in self.rows), default=0.0)


def plan_study(lineage: Lineage, planned: Sequence[PlannedCell], folder: StudyFolder) -> StudyPlan:
    """The plan of the cells that are not there yet."""
    used = [key for each in planned for key in each.trainings]
    groups: defaultdict[str, list[Training]] = defaultdict(list)
    for key in dict.fromkeys(used):
        training = lineage.trainings[key]
        groups[f"{training.step} {training.stage.name}"].append(training)
    # A training whose cells are all measured is not needed again, even if its folder was deleted.
    wanted = {key for each in planned if not is_done(folder, each) for key in each.trainings}
    # Times come from trainings that ended: FLOPs alone do not say what small models waste.
    speeds = {key: speed for key in used if (speed := _speed(lineage, lineage.trainings[key]))}
    rows = [
        _row(lineage, name, group, _Known(Counter(used), wanted, speeds))
        for name, group in groups.items()
    ]
    return StudyPlan(
        cells=len(planned),
        done=sum(is_done(folder, each) for each in planned),
        rows=tuple(rows),
        alone=len(used),
        precision=_precision([lineage.trainings[key].recipe for key in used]),
        alike=tuple(alike_levels(lineage.study, planned)),
    )


def _precision(recipes: Sequence[Recipe]) -> Precision:
    found = {recipe.precision for recipe in recipes}
    return found.pop() if len(found) == 1 else "fp32"


@dataclass(frozen=True)
class _Known:
    """What is known of all trainings by their keys."""

    uses: Counter[str]
    """Cells that use it."""
    wanted: set[str]
    """Keys of those that cells still need."""
    speeds: dict[str, float]
    """FLOP/s of those that are there."""


def _row(lineage: Lineage, name: str, group: Sequence[Training], known: _Known) -> Row:
    there = [each for each in group if is_there(lineage, each)]
    missing = [each for each in group if each.key in known.wanted and each not in there]
    flops = sum(lineage.flops(each.recipe) for each in missing)
    speeds = _nearest_speeds(lineage, group, known.speeds)
    return Row(
        name=name,
        needed=len(group),
        uses=sum(known.uses[each.key] for each in group),
        done=len(there),
        samples=sum(map(partial(_samples, lineage), missing)),
        flops=flops,
        seconds=flops / statistics.median(speeds) if speeds else None,
        memory=max(lineage.plan(each.recipe).stages[0].memory.total for each in group),
    )


def _samples(lineage: Lineage, training: Training) -> int:
    return lineage.plan(training.recipe).stages[0].samples or 0


def _nearest_speeds(
    lineage: Lineage, group: Sequence[Training], speeds: dict[str, float]
) -> list[float]:
    """Speeds of the same stage or, where none is there, of the same step, or of any."""
    own = [speeds[each.key] for each in group if each.key in speeds]
    step = group[0].step
    near = [speed for key, speed in speeds.items() if lineage.trainings[key].step == step]
    return own or near or list(speeds.values())


def to_do(lineage: Lineage, folder: StudyFolder, each: PlannedCell) -> str:
    """What a cell trains before it is measured, in words, with the time that its file says."""
    trainings = [lineage.trainings[key] for key in each.trainings]
    missing = [training for training in trainings if not is_there(lineage, training)]
    told = [f"{each.recipe.name} ({_samples(lineage, each):,} samples)" for each in missing]
    known = {part["name"]: part for part in (file_of(folder, each) or {}).get("trainings", [])}
    took = sum(known.get(training.folder, {}).get("seconds", 0.0) for training in missing)
    time = f", which took {duration(took)} on the machine of its file" if took else ""
    there = f"; {counted(len(trainings) - len(missing), 'training')} there already"
    return f"to train: {', '.join(told) or 'nothing'}{time}{there}"


def is_there(lineage: Lineage, training: Training) -> bool:
    """Whether a training has ended."""
    return bool(manifest_of(lineage.run(training).path).get("stages"))


def _speed(lineage: Lineage, training: Training) -> float | None:
    """FLOP/s that a finished training reached."""
    ended = manifest_of(lineage.run(training).path).get("stages")
    seconds = ended[0]["seconds"] if ended else 0.0
    return lineage.flops(training.recipe) / seconds if seconds else None

"""Affinity of towers and languages, and drift between towers, from folders or hub ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sailvit.api.models import find_model, load_run
from sailvit.api.probing import named_towers
from sailvit.api.towers import load_tower
from sailvit.core.errors import ModelError, RunError
from sailvit.core.outputs import refuse_foreign_file
from sailvit.core.run import RunFolder, write_json
from sailvit.evaluation.affinity.drift import block_drift
from sailvit.evaluation.affinity.features import Floats
from sailvit.evaluation.affinity.pictures import open_pictures
from sailvit.evaluation.affinity.study import MARK, Language, Sizes, Study
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.embedding_table import open_table
from sailvit.models.towers.tower import Tower

FILE = "affinity.json"
"""What is written."""
OWN = "the run's own language"
"""Label of a run's own language."""


@dataclass(frozen=True)
class Subjects:
    """What is compared."""

    towers: Sequence[str]
    """Towers or runs, in folders or by hub ids, or `NAME=TOWER`; drift is from the first."""
    languages: Sequence[str] = ()
    """Languages, in folders or by hub ids; a run is also measured beside its own."""
    reference: str | None = None
    """A run with the same language, the reference of the alignment score; None: no such score."""
    spair: Path | None = None
    """Folder of SPair-71k; None: parts of the pictures stand in for its pairs."""


@dataclass(frozen=True)
class _Loaded:
    """A tower, and the model that it belongs to."""

    tower: Tower
    """The tower."""
    bundle: ModelBundle | None
    """The model; None for a tower by itself."""


def measure_affinity(
    subjects: Subjects,
    images: Path,
    out: Path,
    *,
    sizes: Sizes | None = None,
    seed: int = 0,
    device: str | None = None,
    trust_remote_code: bool = False,
    step: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """The value of `affinity.json`, which is written into the folder `out`.

    Raises:
        ModelError: a tower or language cannot be loaded.
        DataError: there are no pictures.
        RunError: `out` has an affinity.json that this did not write.
    """
    refuse_foreign_file(out / FILE, MARK)
    refuse_foreign_file(out / "report.html")
    # Before any model is loaded, as all else depends on them.
    study = Study(open_pictures(images, seed=seed), sizes or Sizes(), seed, step)
    study.few()
    towers = named_towers(subjects.towers)
    languages = _languages(subjects, trust_remote_code=trust_remote_code)

    def loaded(tower: str) -> _Loaded:
        """The tower, with its model where it has one."""
        step(f"loading {tower}")
        return _load(tower, study, device, trust_remote_code=trust_remote_code)

    reference = _reference(subjects, study, loaded)
    base: tuple[str, Tower] | None = None
    for label, source in towers.items():
        found = loaded(source)
        own = _own_language(source, found, languages)
        study.tower(label, found.tower, [*languages, *own])
        study.correspondence(label, found.tower, subjects.spair)
        if found.bundle is not None:
            study.model(label, found.bundle, OWN, reference)
        if base is None:
            base = (label, found.tower)
            continue
        _add_drift(study, (label, found.tower), base)
    value = study.to_json()
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FILE, value)
    return value


def _languages(subjects: Subjects, *, trust_remote_code: bool) -> list[Language]:
    names = [Path(each).name for each in subjects.languages]
    short = names if len(set(names)) == len(names) else list(subjects.languages)
    return [
        Language(name, *open_table(each, trust_remote_code=trust_remote_code))
        for name, each in zip(short, subjects.languages, strict=True)
    ]


def _own_language(source: str, found: _Loaded, given: Sequence[Language]) -> list[Language]:
    """The language of a run, where no other is asked for."""
    if given:
        return []
    if found.bundle is None:
        raise ModelError(
            f"{source} is a tower by itself; name the language it is compared with: --language"
        )
    return [Language(OWN, *open_table(str(find_model(source).parts / "language")))]


def _load(source: str, study: Study, device: str | None, *, trust_remote_code: bool) -> _Loaded:
    if _is_model(Path(source)):
        try:
            run = load_run(source, device=device, trust_remote_code=trust_remote_code)
        except RunError as error:
            study.left_out(f"{source} behind the connector", error)
        else:
            return _Loaded(run.tower, run.bundle)
    made = load_tower(source, device=device, trust_remote_code=trust_remote_code)
    return _Loaded(made.tower, None)


def _is_model(path: Path) -> bool:
    """Whether a connector lies there too: a run, a stage, or the three parts of one."""
    staged = path.parent.name == "stages" and RunFolder(path.parent.parent).recipe.is_file()
    return staged or RunFolder(path).recipe.is_file() or (path / "connector").is_dir()


def _reference(
    subjects: Subjects, study: Study, loaded: Callable[[str], _Loaded]
) -> list[Floats] | None:
    """Visual tokens of the reference; None without one."""
    if subjects.reference is None:
        return None
    found = loaded(subjects.reference)
    if found.bundle is None:
        raise ModelError(
            f"{subjects.reference} has no connector; the reference of the alignment score is a run"
        )
    return study.tokens(found.bundle)


def _add_drift(study: Study, ours: tuple[str, Tower], base: tuple[str, Tower]) -> None:
    study.step(f"{ours[0]}: drift from {base[0]}")
    images = [each.pixels for each in study.some()]
    try:
        with torch.no_grad():
            blocks = block_drift(ours[1], base[1], images, seed=study.seed)
    except ModelError as error:
        study.left_out(f"drift of {ours[0]} from {base[0]}", error)
        return
    study.values["drift"].append(
        {"tower": ours[0], "base": base[0], "blocks": [asdict(each) for each in blocks]}
    )

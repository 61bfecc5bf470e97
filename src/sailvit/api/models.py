"""`sailvit.load_run`: the model of a run, ready for questions. Every command loads it here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import ValidationError

from sailvit.core.errors import ModelError, RunError, one_line
from sailvit.core.recipe import PARTS, ModelConfig, Recipe
from sailvit.core.run import MODEL_FILE, RunFolder, read_json
from sailvit.distributed.processes import chosen_device
from sailvit.inference.model import RunModel
from sailvit.interop.parts import take_parts
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.loading.quiet import quietly
from sailvit.recipes.loader import load_recipe
from sailvit.training.output.manifest import run_day


@dataclass(frozen=True)
class StageFolder:
    """A stage of a run on the disk."""

    run: RunFolder
    """The run."""
    recipe: Recipe
    """What the run was trained with."""
    index: int
    """The stage's place among the recipe's stages."""

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.recipe.stages[self.index].name

    @property
    def parts(self) -> Path:
        """The folder of the stage's saved parts."""
        return self.run.stage(self.index, self.name)

    @property
    def saved(self) -> SavedModel:
        """The model that the stage saved, with the date of its run, so that dated chat
        templates give the prompts of training.
        """
        day = run_day(self.run, self.recipe)
        model = self.recipe.model.model_copy(update={"chat_date": day})
        return SavedModel(self.parts, model, self.recipe.seed)


@dataclass(frozen=True)
class SavedModel:
    """The three parts of a model in a folder."""

    parts: Path
    """The folder."""
    config: ModelConfig
    """How the parts join; its sources are not used."""
    seed: int = 0
    """Seed of what loading draws, such as the embedding of a new token."""
    origin: Path | None = None
    """The folder that the parts were taken out of for a while; None: they lie there to stay."""


def find_model(path: str | Path, stage: str | None = None) -> SavedModel:
    """The model at `path`: a run folder, the folder of one of its stages, or any folder with
    tower/, connector/ and language/, such as a copy of a stage's.

    In a run folder `stage` names it; None: the last stage.

    Raises:
        RunError: there is none.
    """
    given = Path(path)
    staged = given.parent.name == "stages" and RunFolder(given.parent.parent).recipe.is_file()
    if (
        staged
        or RunFolder(given).recipe.is_file()
        or not any((given / part).is_dir() for part in PARTS)
    ):
        return find_stage(path, stage).saved
    if stage is not None:
        raise RunError(f"{path} is no run, so it has no stage {stage!r}; leave the stage out")
    file = given / MODEL_FILE
    values = read_json(file) if file.is_file() else {}
    sources = {part: str(given / part) for part in ("tower", "language")}
    try:
        return SavedModel(given, ModelConfig.model_validate({**values, **sources}))
    except ValidationError as error:
        raise RunError(
            f"{file} does not say how the parts join ({one_line(error)}); copy it again from the"
            " stage's folder"
        ) from error


@contextmanager
def opened(path: str | Path, stage: str | None = None) -> Iterator[SavedModel]:
    """The model at `path`, as `find_model` finds it, or in a multimodal model's own folder: an
    export, or a released model in a layout that `sailvit parts` reads.

    Such a folder is taken apart into a temporary one, which goes when the context ends and holds
    as much as the model's weights (TMPDIR names its disk).

    Raises:
        RunError: there is no model at `path`.
        ModelError: its layout is not known, or a part of it cannot be read exactly.
    """
    given = Path(path)
    if not _is_whole(given):
        yield find_model(path, stage)
        return
    if stage is not None:
        raise RunError(f"{path} is no run, so it has no stage {stage!r}; leave the stage out")
    with TemporaryDirectory(prefix="sailvit-") as folder:
        taken = take_parts(str(given), Path(folder) / "parts")
        if taken.refused:
            told = "".join(f"\n  {part}: {reason}" for part, reason in taken.refused.items())
            raise ModelError(f"the model in {path} cannot be read exactly:{told}")
        yield replace(find_model(Path(folder) / "parts"), origin=given)


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds one model with a config of its own, and is no run and no three
    parts.
    """
    apart = RunFolder(folder).recipe.is_file() or any((folder / part).is_dir() for part in PARTS)
    return (folder / "config.json").is_file() and not apart


def find_stage(path: str | Path, stage: str | None = None) -> StageFolder:
    """The stage at `path`, which is a run folder or the folder of one of its stages.

    In a run folder `stage` names it; None: the last stage.

    Raises:
        RunError: there is no run at `path`, or it has no such stage.
    """
    given = Path(path)
    run = RunFolder(given)
    if not run.recipe.is_file() and given.parent.name == "stages":
        run, stage = RunFolder(given.parent.parent), given.name.partition("-")[2]
    if not given.exists():
        raise RunError(f"{path} does not exist; name the folder of a run or of an export")
    if not run.recipe.is_file():
        raise RunError(
            f"{path} has no recipe.yaml; expected the folder of a run, as `sailvit train` writes it,"
            " or one with tower/, connector/ and language/, which `sailvit parts` makes of an export"
        )
    recipe = load_recipe(run.recipe)
    names = [made.name for made in recipe.stages]
    if stage is not None and stage not in names:
        raise RunError(f"{path} has no stage {stage!r}; it has {', '.join(names)}")
    return StageFolder(run, recipe, len(names) - 1 if stage is None else names.index(stage))


def load_bundle(
    found: SavedModel,
    *,
    device: torch.device | str | None = None,
    trust_remote_code: bool | None = None,
) -> ModelBundle:
    """The model that a stage saved.

    `device` None: the first GPU, else the CPU. `trust_remote_code` None: what the run's recipe
    says.

    Raises:
        RunError: the stage did not end, or did not save all parts; or there is no such device.
    """
    device = chosen_device(device)
    parts, model = found.parts, found.config
    if missing := [part for part in PARTS if not (parts / part).is_dir()]:
        raise RunError(
            f"{parts} has no {' and no '.join(missing)}; expected a stage that ended and saved"
            " all parts"
        )
    update = {
        "tower": str(parts / "tower"),
        "language": str(parts / "language"),
        "connector": model.connector.model_copy(update={"source": str(parts / "connector")}),
        # The recipe's revisions belong to hub ids; these are folders.
        "revision": {},
        # They are merged in what a stage saves.
        "lora": None,
    }
    if trust_remote_code is not None:
        update["trust_remote_code"] = trust_remote_code
    with quietly():
        bundle = build(model.model_copy(update=update), found.seed)
    bundle.mllm.to(device)
    return bundle


def load_run(
    path: str | Path,
    stage: str | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> RunModel:
    """The model that a run saved, that was exported or released, ready for questions.

    No module that the run's recipe names is imported, and no code of a model's repository runs
    unless `trust_remote_code` says so.

    Args:
        path: a run folder, a stage's folder such as `runs/mine/stages/01-fine`, a copy of
            one, or a folder of a multimodal model that `sailvit export` wrote or `sailvit parts`
            reads.
        stage: name of the stage; None: the last.
        device: the model's device; None: the first GPU, else the CPU.
        dtype: precision of the weights, such as `torch.bfloat16`, which halves their memory;
            None: float32.
        trust_remote_code: whether parts may run Python code that lies beside their weights.

    Raises:
        RunError: there is no run at `path`, the stage did not save all parts, or there is no such
            device.
        ModelError: a part cannot be loaded.
    """
    # First of all, as opening an export copies its weights.
    device = chosen_device(device)
    with opened(path, stage) as found:
        bundle = load_bundle(found, device=device, trust_remote_code=trust_remote_code)
        identity = _identity(found, dtype)
    if dtype is not None:
        # Buffers stay as they are: rotary frequencies in bf16 turn tokens by wrong angles, and
        # the means of channels lose the colours between.
        for parameter in bundle.mllm.parameters():
            parameter.data = parameter.data.to(dtype)
    return RunModel(bundle, identity)


def _identity(found: SavedModel, dtype: torch.dtype | None) -> str:
    """A hash of the model's settings and of its files' sizes and times.

    Reading all weights would take seconds per gigabyte.
    """
    # Copies that were written for this loading alone are new every time; what they come from stays.
    places = [found.parts / part for part in PARTS] if found.origin is None else [found.origin]
    files = sorted(path for place in places for path in place.rglob("*.*"))
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    # Without where the parts lie, which for an export is another folder every time.
    settings = found.config.model_dump_json(exclude={"tower", "language"})
    text = f"{settings} {dtype} {facts}"
    return blake2b(text.encode(), digest_size=8).hexdigest()

"""The parts with random weights that a study begins with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from tempfile import mkdtemp

from sailvit.core.seeding import derive_seed
from sailvit.core.study.definition import Study
from sailvit.models.loading.quiet import quietly
from sailvit.models.loading.small import save_small_language, save_small_tower
from sailvit.models.loading.world_tokenizer import build_tokenizer


def new_parts(study: Study, folder: Path) -> dict[str, str]:
    """Make the study's new parts in `folder`, where they are not yet; their names in a
    reference, by name.
    """
    made = {}
    for name, tower in study.towers.items():
        save = partial(save_small_tower, tower=tower, seed=derive_seed(0, "tower"))
        made[name] = f"new/{_made(folder, name, tower.model_dump_json(), save)}"
    for name, language in study.languages.items():
        write = partial(
            save_small_language,
            language=language,
            tokenizer=build_tokenizer(),
            seed=derive_seed(0, "language"),
        )
        made[name] = f"new/{_made(folder, name, language.model_dump_json(), write)}"
    return made


def _made(folder: Path, name: str, settings: str, save: Callable[[Path], None]) -> str:
    """Name of the part's folder, which its settings are part of."""
    # Settings in the name: an edited tower is a new folder, and trainings of the old one keep
    # theirs.
    own = f"{name}-{blake2b(settings.encode(), digest_size=4).hexdigest()}"
    if not (folder / own).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(mkdtemp(prefix=f".{own}-", dir=folder))
        try:
            with quietly():
                save(draft / own)
            # Another process of the same study may have been first: both made the same.
            if not (folder / own).is_dir():
                (draft / own).rename(folder / own)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return own

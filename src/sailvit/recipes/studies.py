"""From a YAML file to a `Study`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sailvit.core.errors import RecipeError
from sailvit.core.study.definition import Study
from sailvit.core.study.paths import with_paths
from sailvit.recipes.dialect import read_yaml
from sailvit.recipes.loader import shipped_recipes
from sailvit.recipes.problems import explain


def load_study(path: Path) -> Study:
    """The study in a file; relative paths of recipes and data start at the file's folder.

    Raises:
        RecipeError: there is no such file, or it is not valid; the message has a line per
            wrong setting.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise RecipeError(f"{path} {kind}; expected the YAML file of a study")
    document = read_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(document, dict):
        raise RecipeError(
            f"{path}: expected a mapping with name, steps, factors, contrast and measures;"
            f" found {document!r}"[:300]
        )
    try:
        study = Study.model_validate(document)
    except ValidationError as error:
        told = [f"  {line.removeprefix('recipe: ')}" for line in explain(error, Study)]
        raise RecipeError("\n".join([f"{path} is not a valid study:", *told])) from error
    folder = path.parent
    return with_paths(
        study, lambda recipe: _found(recipe, folder), lambda data: _place(data, folder)
    )


def _found(recipe: str, folder: Path) -> str:
    path = (folder / Path(recipe).expanduser()).absolute()
    return str(path) if path.is_file() or recipe not in shipped_recipes() else recipe


def _place(data: str, folder: Path) -> str:
    return data if ":" in data else str((folder / Path(data).expanduser()).absolute())

"""From a YAML file to a `Study`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sailvit.core.errors import RecipeError
from sailvit.core.study.definition import Study
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
    return _anchored(study, path.parent)


def _anchored(study: Study, folder: Path) -> Study:
    """`study` with the paths of its recipes and data made absolute; shipped names stay."""
    document = study.model_dump()
    levels = [level for factor in document["factors"].values() for level in factor.values()]
    changes = [change for level in levels for change in level.values() if change is not None]
    for each in [*document["steps"].values(), *changes]:
        each["recipe"] = each["recipe"] and _found(each["recipe"], folder)
    for measure in document["measures"].values():
        measure["data"] = [_place(each, folder) for each in measure["data"]]
    return Study.model_validate(document)


def _found(recipe: str, folder: Path) -> str:
    path = (folder / Path(recipe).expanduser()).absolute()
    return str(path) if path.is_file() or recipe not in shipped_recipes() else recipe


def _place(data: str, folder: Path) -> str:
    return data if ":" in data else str((folder / Path(data).expanduser()).absolute())

"""Tiny studies: as values, and over tiny parts and data that train in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sailvit.core.study.definition import Study
from sailvit.recipes.loader import dump_recipe
from tiny_parts import Parts
from tiny_runs import recipe, stage, write_data


def definition(**changes: Any) -> dict[str, Any]:
    """Two arms and another one, two further factors, three seeds of which the contrast has four."""
    return {
        "name": "tiny",
        "seeds": 3,
        "set": {"precision": "fp32"},
        "steps": {
            "refine": {"recipe": "demo"},
            "target": {"recipe": "demo-target", "set": {"model.tower": "$refine/tower"}},
        },
        "factors": {
            "arm": {
                "gradual": {},
                "base": {"refine": None},
                "joint": {"refine": {"joint": "samples"}},
            },
            "data": {
                "full": {},
                "half": {"target": {"scale": 0.5}},
                "double": {"target": {"scale": 2}},
            },
            "tower": {"trained": {}, "frozen": {"target": {"stages": ["instruct"]}}},
        },
        "contrast": {"factor": "arm", "base": "base", "refined": "gradual", "seeds": 4},
        "measures": {"world": {"of": "target", "per_task": 2}},
        **changes,
    }


def study(**changes: Any) -> Study:
    return Study.model_validate(definition(**changes))


def trainable(folder: Path, **changes: Any) -> dict[str, Any]:
    """A study of tiny parts: base and two ways to refine, then target training of one stage."""
    parts, sources = Parts(folder / "parts"), write_data(_made(folder / "data"))
    refine = recipe(
        parts,
        sources,
        [
            stage("warm", train={"connector": 1.0, "tower": 1.0}, length={"samples": 6}),
            stage("all", length={"samples": 6}),
        ],
    )
    target = recipe(parts, sources, [stage("tune", length={"samples": 6})])
    for name, each in (("refine", refine), ("target", target)):
        (folder / f"{name}.yaml").write_text(dump_recipe(each))
    return {
        "name": "trained",
        "seeds": 1,
        "set": {"monitoring.loggers": []},
        "steps": {
            "refine": {"recipe": "refine.yaml"},
            "target": {"recipe": "target.yaml", "set": {"model.tower": "$refine/tower"}},
        },
        "factors": {
            "arm": {
                "gradual": {},
                "base": {"refine": None},
                "warm": {"refine": {"stages": ["warm"]}},
            }
        },
        "contrast": {"factor": "arm", "base": "base", "refined": "gradual"},
        "measures": {"world": {"of": "target", "tasks": ["colour"], "per_task": 2}},
        **changes,
    }


def write_study(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "trained.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def cell(
    levels: dict[str, str], seed: int, mean: float, *, status: str = "done", **more: Any
) -> dict[str, Any]:
    """A cell's file with one task of ten questions, of which `mean` are right."""
    hits = round(10 * mean)
    values = {"mean": mean, "scores": {"a": mean}, "answers": {"a": "1" * hits + "0" * (10 - hits)}}
    return {
        "cell": more.pop("name"),
        "levels": levels,
        "seed": seed,
        "status": status,
        "trainings": [],
        **({"values": {"world": values}} if status == "done" else {}),
        **more,
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder

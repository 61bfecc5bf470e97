"""What cells need: which trainings they share, and that a chain of stages is the whole run."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sailvit.api.study.lineage import Lineage
from sailvit.api.study.tasks import TrainTask, perform
from sailvit.core.errors import RecipeError
from sailvit.core.study.cells import cells_of
from sailvit.core.study.definition import Study
from sailvit.recipes.loader import load_recipe
from sailvit.recipes.studies import load_study
from tiny_runs import train
from tiny_studies import definition, study, trainable, write_study


def planned(given: Study, runs: Path):
    lineage = Lineage(given, runs)
    return lineage, {cell.name: lineage.add(cell) for cell in cells_of(given)}


def steps(lineage: Lineage, cell) -> list[str]:
    return [lineage.trainings[key].recipe.name for key in cell.trainings]


def test_cells_share_what_is_equal(tmp_path: Path):
    lineage, cells = planned(study(), tmp_path)
    gradual, base = cells["gradual,seed=0"], cells["base,seed=0"]
    assert steps(lineage, base) == ["target-align", "target-instruct"]
    assert steps(lineage, gradual) == [
        *("refine-coarse", "refine-fine", "refine-knowledge"),
        *("target-align", "target-instruct"),
    ]
    # Less data in target training leaves the refinement as it is.
    half = cells["gradual,data=half,seed=0"]
    assert half.trainings[:3] == gradual.trainings[:3]
    assert not set(half.trainings[3:]) & set(gradual.trainings[3:])
    assert not set(cells["gradual,seed=1"].trainings) & set(gradual.trainings)
    assert len(cells) == len({cell.key for cell in cells.values()})


def test_a_shorter_chain_of_the_same_stages_is_shared(tmp_path: Path):
    arms = {
        "gradual": {},
        "base": {"refine": None},
        "early": {"refine": {"stages": ["coarse", "fine"]}},
    }
    given = study(factors={"arm": arms}, seeds=1)
    _, cells = planned(given, tmp_path)
    gradual, early = cells["gradual,seed=0"], cells["early,seed=0"]
    assert early.trainings[:2] == gradual.trainings[:2]
    assert len(set(early.trainings) & set(gradual.trainings)) == 2


def test_a_step_that_is_left_out_gives_what_it_was_given(tmp_path: Path):
    lineage, cells = planned(study(), tmp_path)
    base = lineage.trainings[cells["base,seed=0"].trainings[0]]
    assert base.recipe.model.tower == "sailvit:world/tower"
    assert base.parents == set()
    gradual = cells["gradual,seed=0"].trainings
    target = lineage.trainings[gradual[3]]
    assert target.recipe.model.tower == f"study://{gradual[2]}/tower"
    folder = lineage.located(target.recipe).model.tower
    assert folder == str(tmp_path / f"refine-knowledge-{gradual[2]}" / "stages/00-knowledge/tower")


def test_seeds_share_a_step_that_is_shared(tmp_path: Path):
    values = definition(seeds=2)
    values["steps"]["refine"]["shared"] = True
    _, cells = planned(Study.model_validate(values), tmp_path)
    one, other = cells["gradual,seed=0"].trainings, cells["gradual,seed=1"].trainings
    assert one[:3] == other[:3]
    assert not set(one[3:]) & set(other[3:])


def test_at_once_takes_the_mixtures_of_all_stages(tmp_path: Path):
    lineage, cells = planned(study(), tmp_path)
    joint = lineage.trainings[cells["joint,seed=0"].trainings[0]].stage
    assert joint.length.samples == 8000 + 26000 + 20000
    assert set(joint.train) == {"tower", "connector", "language"}
    shares = {name: portion.share for name, portion in joint.data.items()}
    assert shares == pytest.approx(
        {"simple": 8000, "detailed": 26000, "knowledge": 18000, "text": 2000}
    )
    assert joint.optim.lr == 1e-3


def test_at_once_for_as_many_flops(tmp_path: Path):
    arms = {"gradual": {}, "base": {"refine": None}, "compute": {"refine": {"joint": "compute"}}}
    lineage, cells = planned(study(factors={"arm": arms}, seeds=1), tmp_path)
    flops = {
        name: sum(
            lineage.flops(lineage.trainings[key].recipe)
            for key in cell.trainings
            if lineage.trainings[key].step == "refine"
        )
        for name, cell in cells.items()
    }
    assert flops["compute,seed=0"] == pytest.approx(flops["gradual,seed=0"], rel=1e-4)


def test_other_data_is_another_training(tmp_path: Path):
    given = write_study(tmp_path, trainable(tmp_path))
    _, before = planned(load_study(given), tmp_path / "runs")
    text = tmp_path / "data" / "chat.json"
    text.write_text(text.read_text().replace("colour is the square", "colour is a square"))
    _, after = planned(load_study(given), tmp_path / "runs")
    assert all(before[name].key != after[name].key for name in before)


def test_a_precision_that_may_differ_is_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match="precision of step refine is auto"):
        planned(study(set={}), tmp_path)


def test_a_stage_that_is_not_there_is_refused(tmp_path: Path):
    arms = {"gradual": {"refine": {"stages": ["finer"]}}, "base": {"refine": None}}
    with pytest.raises(RecipeError, match="no stage 'finer', which the study keeps; it has coarse"):
        planned(study(factors={"arm": arms}), tmp_path)


def test_new_parts_are_made_once_and_known_by_their_settings(tmp_path: Path):
    values = definition(towers={"small": {"family": "aimv2", "width": 32, "blocks": 1}})
    values["steps"]["refine"]["set"] = {"model.tower": "$new/small"}
    lineage, cells = planned(Study.model_validate(values), tmp_path)
    first = lineage.trainings[cells["gradual,seed=0"].trainings[0]]
    assert first.recipe.model.tower.startswith("study://new/small-")
    folder = Path(lineage.located(first.recipe).model.tower)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    Lineage(Study.model_validate(values), tmp_path)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    values["towers"]["small"]["blocks"] = 2
    # Settings that count are in the key, whatever else their section holds.
    _, deeper = planned(Study.model_validate(values), tmp_path)
    assert deeper["gradual,seed=0"].trainings[0] != first.key


def test_stages_one_by_one_are_the_whole_run(tmp_path: Path):
    given = load_study(write_study(tmp_path, trainable(tmp_path)))
    lineage, cells = planned(given, tmp_path / "runs")
    chain = [lineage.trainings[key] for key in cells["gradual,seed=0"].trainings[:2]]
    for training in chain:
        recipe, folder = lineage.located(training.recipe), lineage.run(training).path
        task = TrainTask(recipe, folder, training.known)
        assert perform(task).state == "done"
    train(load_recipe(tmp_path / "refine.yaml", ["seed=0"]), tmp_path / "whole")
    for part in ("tower", "connector", "language"):
        alone = load_file(lineage.run(chain[1]).stage(0, "all") / part / "model.safetensors")
        whole = load_file(tmp_path / "whole" / "stages" / "01-all" / part / "model.safetensors")
        assert alone.keys() == whole.keys()
        assert all(torch.equal(alone[name], whole[name]) for name in alone)


def test_a_tower_that_no_stage_trained_is_the_base(tmp_path: Path):
    arms = {"gradual": {}, "base": {"refine": None}, "still": {"refine": {"stages": ["coarse"]}}}
    _, cells = planned(study(factors={"arm": arms}, seeds=1), tmp_path)
    assert cells["still,seed=0"].trainings == cells["base,seed=0"].trainings

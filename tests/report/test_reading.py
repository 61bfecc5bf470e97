"""Run files become values, also when a run was stopped, resumed or edited."""

import json

import numpy as np
import pytest

from sailvit.core.errors import RunError
from sailvit.core.run import RunFolder, append_line, read_json, write_json
from sailvit.report.reading import read_run


def test_a_finished_run_has_its_stages_curves_and_proofs(run):
    data = read_run(run)
    assert [stage.name for stage in data.stages] == ["coarse", "fine", "knowledge"]
    coarse = data.stages[0]
    assert coarse.finished
    assert coarse.train == {"connector": 1.0}
    assert len(coarse.metrics.step) == 40
    assert set(coarse.metrics.loss) == {"next_token", "contrastive"}
    assert coarse.metrics.measures["wait"] == pytest.approx(np.full(40, 0.02))
    assert np.isnan(coarse.metrics.measures["mfu"]).all()
    assert [(proof.when, proof.ok) for proof in coarse.proofs] == [
        ("first steps", True),
        ("end", True),
    ]
    assert data.recipe.startswith("name: demo")


def test_a_stopped_stage_is_known_from_its_metrics(run):
    manifest = read_json(run.manifest)
    write_json(run.manifest, {**manifest, "stages": manifest["stages"][:1]})
    fine = read_run(run).stages[1]
    assert (fine.name, fine.finished, fine.steps, fine.samples) == ("fine", False, 40, 640)
    assert set(fine.train) == {"connector", "tower"}
    assert fine.seconds == pytest.approx(40 * 16 / 170)


def test_steps_repeated_by_a_resume_count_once(run):
    with run.metrics.open() as file:
        line = json.loads(file.readline())
    append_line(run.metrics, {**line, "loss": {"next_token": 7.0}})
    metrics = read_run(run).stages[0].metrics
    assert len(metrics.step) == 40
    assert metrics.loss["next_token"][0] == 7.0
    assert np.isnan(metrics.loss["contrastive"][0])


def test_scores_may_come_from_another_run(run, bare_run):
    assert read_run(bare_run).evaluation is None
    data = read_run(bare_run, run)
    assert data.evaluation["models"]["base"]["count"] == 1200
    assert set(data.affinity["models"]) == {"base", "refined"}


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match="run folder"):
        read_run(RunFolder(tmp_path))


def test_a_missing_key_is_named(run):
    manifest = read_json(run.manifest)
    del manifest["parents"]
    write_json(run.manifest, manifest)
    with pytest.raises(RunError, match="'parents'"):
        read_run(run)


def test_scores_of_another_layout_are_refused(run):
    write_json(run.evaluation, {"base": 0.3})
    with pytest.raises(RunError, match="expected `models`"):
        read_run(run)

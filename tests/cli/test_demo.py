"""The quick demo walks the whole road; what it learns is not looked at."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from transformers import AutoModel
from typer.testing import CliRunner

from sailvit.api.beside import Beside, TrainingsBeside
from sailvit.api.demo import LABELS, QUICK, DemoSize, run_demo
from sailvit.api.evaluation import evaluate
from sailvit.api.screen import Screen
from sailvit.cli.app import app
from sailvit.cli.demo import command_here
from sailvit.core.errors import RunError
from sailvit.core.ownership import strangers
from sailvit.core.run import RunFolder, read_json, read_lines
from sailvit.evaluation.scoring.rules import Rules
from sailvit.evaluation.suites.evaluated import Asking
from sailvit.evaluation.suites.planning import plan_suite
from sailvit.models.loading.parts import resolve_source
from sailvit.recipes.loader import load_recipe
from sailvit.synthetic.world.tasks import EVAL_TASKS


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("demo") / "run")
    threads = torch.get_num_threads()
    size = DemoSize(quick=True, per_task=3, compare=True)
    # Half of the quick demo's, and still more than ten steps of each stage.
    shorter = {name: (200,) * len(counts) for name, counts in QUICK.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sailvit.api.demo.QUICK", shorter)
        summary = run_demo(folder, size, seed=3, screen=Screen())
    torch.set_num_threads(threads)
    return folder, summary


def test_summary_holds_the_means_of_the_task_scores(walked):
    folder, summary = walked
    assert read_json(folder.summary) == summary
    assert set(summary["tasks"]) == set(EVAL_TASKS)
    for name in LABELS:
        scores = [task[name] for task in summary["tasks"].values()]
        assert summary[name] == pytest.approx(sum(scores) / len(scores))
        assert all(score * 3 == pytest.approx(round(score * 3)) for score in scores)
    assert summary["gain"] == pytest.approx(summary["refined"] - summary["base"])
    assert (summary["seed"], summary["quick"]) == (3, True)
    assert 0 < summary["seconds"] < 900


def test_every_stage_is_proved_at_its_start_and_end(walked):
    folder, _ = walked
    lines = list(read_lines(folder.proofs))
    assert [(line["stage"], line["when"]) for line in lines] == [
        (stage, when)
        for stage in ("coarse", "fine", "knowledge")
        for when in ("first steps", "end")
    ]
    assert all(line["ok"] for line in lines)


def test_the_target_trainings_differ_in_the_tower_alone(walked):
    folder, _ = walked
    recipes = {name: load_recipe(folder.path / "target" / name / "recipe.yaml") for name in LABELS}
    towers = {name: recipe.model.tower for name, recipe in recipes.items()}
    assert towers == {
        "base": "sailvit:world/tower",
        "at-once": str(folder.path / "at-once/stages/00-joint/tower"),
        "refined": str(folder.stage(2, "knowledge") / "tower"),
    }
    same = [recipe.model_copy(update={"model": None}) for recipe in recipes.values()]
    assert same[0] == same[1] == same[2]
    for name, recipe in recipes.items():
        alike = recipes["base"].model.model_copy(update={"tower": towers[name]})
        assert alike == recipe.model


def test_all_at_once_trains_on_as_many_samples(walked):
    folder, _ = walked
    stages, (joint,) = (
        load_recipe(at.recipe).stages for at in (folder, RunFolder(folder.path / "at-once"))
    )
    assert joint.length.samples == sum(stage.length.samples for stage in stages)
    assert all(joint.share(part) > 0 for part in ("tower", "connector", "language"))


def test_target_training_leaves_the_refined_tower_as_it_was(walked):
    folder, _ = walked
    refined = AutoModel.from_pretrained(folder.stage(2, "knowledge") / "tower").state_dict()
    used = AutoModel.from_pretrained(
        folder.path / "target/refined/stages/01-instruct/tower"
    ).state_dict()
    base = AutoModel.from_pretrained(resolve_source("sailvit:world/tower")).state_dict()
    assert all(torch.equal(refined[name], used[name]) for name in refined)
    assert not any(torch.equal(refined[name], base[name]) for name in refined)


def test_report_shows_the_comparison(walked):
    folder, summary = walked
    page = folder.report.read_text(encoding="utf-8")
    assert f"{summary['base']:.3f}" in page
    assert f"{summary['refined']:.3f}" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    for place in read_json(folder.affinity)["models"].values():
        assert set(place["distances"]) == {"nearest", "wasserstein", "mean"}


def test_the_evaluation_has_the_same_questions_answers_and_scores(walked, tmp_path):
    folder, summary = walked
    models = [folder.path / "target" / name for name in LABELS]
    plan = plan_suite("demo", folder.answers / "demo", names=["demo_world"])
    asking = Asking(style="bare", longest=32, batch=5)
    made = evaluate(models, plan, tmp_path / "out", Rules(), asking)
    for each in made:
        score = each.scores["demo_world"]
        assert score.total == 3 * len(EVAL_TASKS)
        assert {name: score.metrics[name] for name in EVAL_TASKS} == pytest.approx(
            {name: 100 * task[each.label] for name, task in summary["tasks"].items()}
        )
        name = f"{each.label}/{each.label}_demo_world.jsonl"
        one, other = (list(read_lines(at / name)) for at in (folder.answers, tmp_path / "out"))
        assert one == other


def test_the_answers_are_the_runs_own_and_another_demo_may_replace_them(walked):
    folder, _ = walked
    assert strangers(folder.path) == []


def test_the_refined_model_answers_about_the_picture(walked):
    folder, _ = walked
    words = [str(folder.path / "target/refined"), "--image", str(folder.picture)]
    done = CliRunner().invoke(app, ["ask", *words, "describe everything"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip()


@pytest.mark.parametrize(
    ("called", "told"),
    [
        ("src/sailvit/__main__.py", f"{sys.executable} -m sailvit"),
        (".venv/bin/sailvit", ".venv/bin/sailvit"),
    ],
)
def test_the_command_to_ask_with_is_one_that_runs(monkeypatch, called, told):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(sys, "argv", [called, "demo"])
    assert command_here() == told


def beside(folder, what="a training", tower="none"):
    settings = ["stages.0.length.samples=1", f"model.tower={tower}"]
    return Beside(what, "demo-target", settings, RunFolder(folder))


def test_failed_training_beside_is_an_error_that_names_its_log(tmp_path, monkeypatch):
    # A user's own file of a library's name in the current folder is not taken for the library.
    (tmp_path / "random.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    failing = beside(tmp_path / "a/base", tower=tmp_path / "none")
    never = beside(tmp_path / "b")
    message = pytest.raises(RunError, match=r"a training failed; .*base\.log")
    with TrainingsBeside([failing, never], 1) as trainings, message:
        trainings.check()
        trainings.wait()
    with pytest.raises(RunError, match="failed"):
        trainings.check()
    assert "cannot load the tower" in failing.log.read_text(encoding="utf-8")
    assert not never.log.exists()


def test_trainings_beside_end_with_what_they_are_beside(tmp_path):
    began = time.perf_counter()
    one, other = beside(tmp_path / "one", tower="sailvit:world/tower"), beside(tmp_path / "other")
    with TrainingsBeside([one, other], 1):
        while not one.log.exists():
            time.sleep(0.01)
    assert time.perf_counter() - began < 60
    assert not other.log.exists()

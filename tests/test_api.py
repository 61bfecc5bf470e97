"""The Python entry: train, resume, load, ask, and features, with nothing global left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sailvit
from sailvit.api.models import find_model, find_stage, load_bundle
from sailvit.core.errors import DataError, InterruptedRunError, RecipeError, RunError
from sailvit.core.recipe import Recipe
from sailvit.data.processing.given import as_image
from sailvit.data.processing.images import load_image
from sailvit.inference.answers import answer
from sailvit.inference.conversation import question
from sailvit.recipes.python import made_recipe
from sailvit.training import trainer as trainer_module
from tiny_parts import SIDE, Parts, picture, save_model
from tiny_runs import recipe, stage, without_pages, write_data


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
    without_pages(monkeypatch)


@pytest.fixture(scope="module")
def made(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    stages = [
        stage("coarse", train={"connector": 1.0}, length={"samples": 8}),
        stage("fine", length={"samples": 8}),
    ]
    return recipe(parts, write_data(tmp_path_factory.mktemp("data")), stages)


@pytest.fixture(scope="module")
def run(made: Recipe, tmp_path_factory: pytest.TempPathFactory) -> sailvit.api.running.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "device_peak", lambda *_: 1e12)
        return sailvit.train(made, run=tmp_path_factory.mktemp("runs") / "mine", quiet=True)


class Stop(sailvit.Callback):
    """Interrupts the process after a step, and keeps the losses."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.losses = after, []

    def step_ended(self, run, record):
        self.losses.append(record.loss["next_token"])
        if len(self.losses) == self.after:
            os.kill(os.getpid(), signal.SIGINT)


def weights(folder: Path) -> bytes:
    return (folder / "tower" / "model.safetensors").read_bytes()


def test_names_are_there_without_torch():
    code = (
        "import sys, sailvit; assert 'torch' not in sys.modules; dir(sailvit);"
        "sailvit.Recipe, sailvit.SailvitError; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(sailvit, name) for name in sailvit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        sailvit.trian  # noqa: B018
    assert set(sailvit.__all__) == set(sailvit._HOMES)


def test_a_run_says_where_everything_is(run):
    assert list(run.stages) == ["coarse", "fine"]
    assert all((folder / "tower").is_dir() for folder in run.stages.values())
    assert run.recipe.name == "tiny"
    assert [line["stage"] for line in run.metrics()][:1] == ["coarse"]
    assert all(line["ok"] for line in run.proofs())
    assert run.report.is_file()


def test_overrides_take_values_and_texts(made):
    changed = made_recipe(made, {"seed": 7, "stages.fine.optim.lr": 1e-4})
    assert (changed.seed, changed.stages[1].optim.lr) == (7, 1e-4)
    assert made_recipe(made.model_dump(), ["seed=7"]) == made_recipe(made, {"seed": 7})
    for overrides in ({"stages.3.optim.lr": 1}, {"sead": 1}):
        with pytest.raises(RecipeError, match=r"no item '3'|seed"):
            made_recipe(made, overrides)


def test_relative_paths_of_a_recipe_in_python_start_here(made, monkeypatch):
    values = made.model_dump()
    source = Path(values["sources"]["chat"]["path"])
    monkeypatch.chdir(source.parent)
    values["sources"]["chat"]["path"] = source.name
    assert made_recipe(values) == made


def test_an_interrupt_saves_and_the_run_goes_on_to_the_same_weights(run, made, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InterruptedRunError, match="the state is in"):
        sailvit.train(made, run=tmp_path / "run", callbacks=[Stop(after=2)], quiet=True)
    assert signal.getsignal(signal.SIGINT) is before
    rest = Stop()
    done = sailvit.train(made, run=tmp_path / "run", resume=True, callbacks=[rest], quiet=True)
    # The step in progress is finished: three of four were done.
    assert (len(rest.losses), len(done.metrics())) == (1, 4)
    assert weights(done.stages["fine"]) == weights(run.stages["fine"])
    finished = sailvit.train(made, run=tmp_path / "run", resume=True, quiet=True)
    assert not finished.trained
    again = sailvit.train(made, run=tmp_path / "run", overrides={"resume": "auto"}, quiet=True)
    assert not again.trained


def test_a_second_run_in_another_thread_gives_the_same_weights(run, made, tmp_path):
    done = []
    thread = threading.Thread(
        target=lambda: done.append(sailvit.train(made, run=tmp_path / "run", quiet=True))
    )
    thread.start()
    thread.join()
    assert weights(done[0].stages["fine"]) == weights(run.stages["fine"])


def test_nothing_global_is_left_behind(made, tmp_path):
    from transformers.utils import logging

    def state():
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return (
            handlers,
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
            torch.get_num_threads(),
            logging.get_verbosity(),
            logging.is_progress_bar_enabled(),
            list(warnings.filters),
            dict(os.environ),
            torch.distributed.is_initialized(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            Path.cwd(),
        )

    # What libraries set up once for a process is there after the first run.
    sailvit.train(made, run=tmp_path / "first", quiet=True)
    before, threads = state(), set(threading.enumerate())
    done = sailvit.train(made, run=tmp_path / "second", quiet=True)
    done.load().generate(picture(1), "what colour?", max_new_tokens=2)
    sailvit.load_tower(done.folder)(picture(1))
    for found, expected in zip(state(), before, strict=True):
        assert found == expected
    # Those of earlier tests may have ended meanwhile.
    assert set(threading.enumerate()) <= threads


def test_questions_are_answered_as_the_evaluation_answers_them(run):
    model = run.load()
    records = [question(picture(1), "what colour is the square?"), question(None, "what is red?")]
    expected = answer(model.bundle, records, longest=6)
    texts = ["what colour is the square?", "what is red?"]
    assert model.generate([picture(1), None], texts, max_new_tokens=6) == expected
    assert model.generate(picture(1), texts[0], max_new_tokens=6) == expected[0]
    assert model.generate([picture(1)], f"<image>\n{texts[0]}", max_new_tokens=6) == expected[0]
    assert model.generate(None, texts, max_new_tokens=6)[1] == expected[1]
    with pytest.raises(DataError, match="1 images for 2 questions"):
        model.generate([picture(1)], texts)
    with pytest.raises(DataError, match="1 <image> marks for 2 images"):
        model.generate([picture(1), picture(2)], "<image> what?")


def test_prompts_are_the_tokens_that_training_saw(run):
    model = run.load()
    trained = sailvit.Record(
        "0",
        (sailvit.Turn("user", "<image>\nwhat colour?"), sailvit.Turn("assistant", "red")),
        (picture(1),),
    )
    sample = model.generation.processor("chat", trained)
    prompt = model.generation.prompt(question(picture(1), "what colour?")).tokens
    assert torch.equal(prompt, sample.tokens[: len(prompt)])
    # Labels are shifted: the first answer token is learnt at the prompt's last position.
    assert int((sample.labels >= 0).nonzero()[0]) == len(prompt) - 1


def test_a_stage_is_found_by_name_and_by_folder(run):
    for found in (find_stage(run.folder, "coarse"), find_stage(run.stages["coarse"])):
        assert found.parts == run.stages["coarse"]
    states = [model.tower.state_dict() for model in (run.load("coarse"), run.load())]
    assert not all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    with pytest.raises(RunError, match="no stage 'world'; it has coarse, fine"):
        sailvit.load_run(run.folder, "world")
    with pytest.raises(RunError, match=r"has no recipe\.yaml"):
        sailvit.load_run(run.folder.parent)


def test_a_towers_features_are_those_of_its_model(run, parts):
    tower = sailvit.load_tower(run.folder)
    whole = load_bundle(find_model(run.folder)).mllm.tower.eval()
    tile = torch.from_numpy(picture(1)).permute(2, 0, 1)[None]
    features = tower([picture(1), picture(2), picture(3)], batch=2)
    assert features.shape == (3, tower.grid[0] * tower.grid[1], tower.width) == (3, 16, 32)
    assert (tower.grid, tower.size) == ((4, 4), SIDE)
    with torch.no_grad():
        assert torch.allclose(features[:1], whole(tile), atol=1e-5)
    for place in (run.stages["fine"], run.stages["fine"] / "tower"):
        assert torch.equal(sailvit.load_tower(place)([picture(2)]), tower([picture(2)]))
    assert not torch.equal(sailvit.load_tower(run.stages["coarse"])(picture(2)), tower(picture(2)))
    bare = sailvit.load_tower(parts.tower("registers"))
    assert bare([]).shape == (0, 16, 32)
    assert bare(picture(1)).shape == (1, 16, 32)


def test_images_come_in_every_form(tmp_path):
    pixels = picture(5)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    forms = [
        pixels,
        image,
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        torch.from_numpy(pixels),
    ]
    for form in forms:
        assert np.array_equal(load_image(as_image(form)), pixels)
    grey = as_image(pixels[..., 0])
    assert grey.shape == pixels.shape
    for mode in ("L", "P", "RGBA", "LA", "1", "CMYK", "I;16", "YCbCr"):
        load_image(
            as_image(image.convert(mode) if mode != "I;16" else image.convert("I").convert(mode))
        )
    turned = Image.new("RGB", (4, 2))
    turned.getexif()[0x0112] = 6
    assert load_image(as_image(turned)).shape == (4, 2, 3)
    for wrong in (3, pixels.astype(float), pixels[None]):
        with pytest.raises(DataError, match="expected"):
            as_image(wrong)


def test_a_picture_that_is_not_there_is_named(parts: Parts, tmp_path: Path):
    tower = sailvit.load_tower(parts.tower("siglip"))
    for given in (tmp_path / "none.jpg", str(tmp_path / "none.jpg"), "x" * 5000):
        with pytest.raises(sailvit.SailvitError, match=r"does not exist; name an image file"):
            tower(given)


def test_a_tower_is_found_in_a_copy_of_a_stage(parts: Parts, tmp_path: Path):
    folder = save_model(parts.build(feature_layer=1), tmp_path / "copy")
    (folder / "model.json").write_text('{"feature_layer": 1, "chat_date": "2026-01-01"}')
    found = sailvit.load_tower(folder, device="cpu")
    assert found.tower.choice.layers == (1,)
    expected = sailvit.load_tower(folder / "tower", feature_layer=1, device="cpu")
    assert torch.equal(found(picture(0)), expected(picture(0)))

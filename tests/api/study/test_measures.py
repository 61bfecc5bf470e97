"""Every kind of measure on a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from question_tables import choice_rows, write_table
from transformers import AutoModelForCausalLM

from sailvit.api.study import measures
from sailvit.api.study.measures import Drawn, Trained, measured
from sailvit.core.errors import DataError
from sailvit.core.study.definition import Measure
from sailvit.data.processing.processor import Processor
from sailvit.data.sources import open_source
from sailvit.evaluation.probes.drawn import write_glyphs, write_world
from sailvit.models.loading.build import build
from sailvit.recipes.loader import dump_recipe
from tiny_parts import Parts, picture
from tiny_runs import recipe, stage, train, write_data


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("measured")
    (folder / "data").mkdir()
    made = recipe(
        Parts(folder / "parts"), write_data(folder / "data"), [stage(length={"samples": 4})]
    )
    train(made, folder / "run")
    (folder / "run" / "recipe.yaml").write_text(dump_recipe(made))
    return Trained(made.model, 0, folder / "run")


def drawn(seed: int, folder: Path = Path("nothing is drawn here")) -> Drawn:
    return Drawn(seed, folder)


def test_the_worlds_questions_depend_on_the_seed(trained: Trained):
    measure = Measure(of="target", tasks=["colour", "read_shape"], per_task=3)
    values = measured(measure, trained, drawn(5))
    assert list(values["scores"]) == ["colour", "read_shape"]
    assert values["mean"] == pytest.approx(sum(values["scores"].values()) / 2)
    for task, hits in values["answers"].items():
        assert len(hits) == 3
        assert hits.count("1") / 3 == pytest.approx(values["scores"][task])
    assert measured(measure, trained, drawn(5)) == values


def test_the_demos_suite_is_asked_of_the_run(trained: Trained):
    measure = Measure(kind="suite", suite="demo", of="target", tasks=["demo_count"], per_task=8)
    values = measured(measure, trained, drawn(0))
    assert list(values["scores"]) == ["demo_count"]
    assert len(values["answers"]["demo_count"]) == 8


def test_a_suite_needs_a_model(trained: Trained):
    alone = Trained(trained.config, 0, None)
    with pytest.raises(DataError, match="step refine is left out, so that there is no model"):
        measured(Measure(kind="suite", of="refine"), alone, drawn(0))


def test_a_suite_lacks_none_of_the_named_sets(trained: Trained, tmp_path: Path):
    write_table(tmp_path / "MMStar.tsv", choice_rows(2))
    tasks = ["MMStar", "AI2D_TEST"]
    measure = Measure(kind="suite", of="target", tasks=tasks, data=[str(tmp_path)])
    with pytest.raises(DataError, match=r"lacks tables of the suite \(AI2D_TEST\)"):
        measured(measure, trained, drawn(0))
    # Without names, the folder's tables are the suite's.
    every = measure.model_copy(update={"tasks": []})
    assert list(measured(every, trained, drawn(0))["scores"]) == ["MMStar"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image": "!" * 80}, "1 question of MMStar could not be asked"),
        ({"answer": ""}, "MMStar has no score in a study"),
    ],
)
def test_a_suites_scores_are_of_whole_sets(trained: Trained, tmp_path: Path, changes, told):
    write_table(tmp_path / "MMStar.tsv", [choice_rows(1)[0] | changes])
    measure = Measure(kind="suite", of="target", tasks=["MMStar"], data=[str(tmp_path)])
    with pytest.raises(DataError, match=told):
        measured(measure, trained, drawn(0))


def test_a_tower_is_probed_on_pictures_in_classes(trained: Trained, tmp_path: Path):
    for number in range(40):
        split = "train" if number < 30 else "test"
        folder = tmp_path / split / ("bright" if number % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        shown = picture(number) // 2 + 128 * (number % 2)
        Image.fromarray(shown.astype("uint8")).save(folder / f"{number}.png")
    measure = Measure(kind="probe", of="refine", tasks=["knn"], data=[str(tmp_path)])
    values = measured(measure, trained, drawn(0))
    name = f"knn {tmp_path.name}/test top-1"
    assert values["scores"] == {name: 1.0}
    assert values["answers"] == {name: "1" * 10}


def texts(folder: Path, count: int = 6) -> Path:
    path = folder / "texts.jsonl"
    rows = [
        {
            "conversations": [
                {"from": "human", "value": f"say {number}"},
                {"from": "gpt", "value": "seven red circles " * (1 + number % 3)},
            ]
        }
        for number in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_texts_are_read_as_monitoring_reads_them(trained: Trained, tmp_path: Path):
    source = {"format": "chat", "path": str(texts(tmp_path))}
    measure = Measure.model_validate({"kind": "text", "of": "refine", "source": source})
    values = measured(measure, trained, drawn(0))
    bundle = build(trained.config, trained.seed)
    alone = AutoModelForCausalLM.from_pretrained(trained.config.language).eval()
    processor = Processor(bundle.tokenizer, bundle.layout, 1024, day=bundle.day)
    opened = open_source("texts", measure.source, Path())
    # Each alone and by hand, so that packs are shown to keep texts apart.
    total, tokens = 0.0, 0
    for position in range(6):
        sample = processor("text", opened[position])
        with torch.no_grad():
            logits = alone(sample.tokens[None]).logits[0].log_softmax(-1)
        (places,) = (sample.labels >= 0).nonzero(as_tuple=True)
        total -= float(logits[places, sample.labels[places]].sum())
        tokens += len(places)
    assert values["mean"] == pytest.approx(total / tokens, rel=1e-5)
    assert (values["tokens"], values["texts"], values["answers"]) == (tokens, 6, {})


def test_the_seed_draws_the_texts(trained: Trained, tmp_path: Path):
    source = {"format": "chat", "path": str(texts(tmp_path, 30))}
    measure = Measure.model_validate(
        {"kind": "text", "of": "refine", "source": source, "per_task": 4}
    )
    seen = [measured(measure, trained, drawn(seed)) for seed in (0, 0, 1)]
    assert seen[0] == seen[1] != seen[2]
    assert [each["texts"] for each in seen] == [4, 4, 4]


def test_a_model_that_has_diverged_has_no_value(trained: Trained, tmp_path: Path, monkeypatch):
    source = {"format": "chat", "path": str(texts(tmp_path))}
    measure = Measure.model_validate({"kind": "text", "of": "refine", "source": source})
    real = measures.build

    def diverged(*given):
        bundle = real(*given)
        torch.nn.init.constant_(bundle.mllm.language.get_output_embeddings().weight, math.nan)
        return bundle

    monkeypatch.setattr(measures, "build", diverged)
    with pytest.raises(DataError, match=r"step refine gives nan .* training has diverged"):
        measured(measure, trained, drawn(0))


def test_a_measure_of_texts_needs_texts(trained: Trained):
    with pytest.raises(ValidationError, match="a measure of kind text needs `source`"):
        Measure(kind="text", of="refine")
    pictures = {"format": "world", "options": {"tasks": "fine", "size": 3}}
    measure = Measure.model_validate({"kind": "text", "of": "refine", "source": pictures})
    with pytest.raises(DataError, match=r"source of texts \(world\) has no record without images"):
        measured(measure, trained, drawn(0))


def test_pictures_of_a_seed_are_drawn_once(trained: Trained, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(measures, "WORLD_SIZE", (300, 20))
    measure = Measure(kind="probe", of="refine", tasks=["knn"])
    values = measured(measure, trained, drawn(3, tmp_path))
    assert list(values["scores"]) == ["knn glyphs/test top-1"]
    assert len(values["answers"]["knn glyphs/test top-1"]) == 20
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert len(kept) == 320
    assert measured(measure, trained, drawn(3, tmp_path)) == values
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == kept


def test_glyphs_alone_are_those_of_the_whole_world(tmp_path: Path):
    whole, _ = write_world(tmp_path, 12, 6, 3)
    alone = write_glyphs(tmp_path, 12, 6, 3)
    files = {path.relative_to(alone): path.read_bytes() for path in alone.rglob("*.png")}
    assert len(files) == 18
    assert files == {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*.png")}

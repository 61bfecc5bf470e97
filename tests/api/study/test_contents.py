"""What a study reads and does not make: other files are other trainings, also while it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_tokenizers import CHATML

from sailvit.api.study.contents import checkpoint_fingerprint
from sailvit.api.study.lineage import Lineage, PlannedCell
from sailvit.api.study.tasks import MeasureTask, TrainTask, perform
from sailvit.core.errors import RecipeError
from sailvit.core.study.cells import cells_of
from sailvit.recipes.studies import load_study
from tiny_studies import trainable, write_study


def planned(folder: Path, **changes) -> tuple[Lineage, PlannedCell]:
    """The lineage of a tiny study and its cell `gradual`; parts and data stay where they are."""
    path = folder / "trained.yaml"
    if not path.exists():
        write_study(folder, trainable(folder, **changes))
    given = load_study(path)
    lineage = Lineage(given, folder / "runs")
    cells = {cell.name: lineage.add(cell) for cell in cells_of(given)}
    return lineage, cells["gradual,seed=0"]


def language(lineage: Lineage, cell: PlannedCell) -> Path:
    return Path(lineage.trainings[cell.trainings[0]].recipe.model.language)


def tower(lineage: Lineage, cell: PlannedCell) -> Path:
    return Path(lineage.trainings[cell.trainings[0]].recipe.model.tower)


def with_template(folder: Path, template: str) -> None:
    """Give a language another chat template, wherever its tokenizer keeps it."""
    (folder / "chat_template.jinja").write_text(template)


@pytest.mark.parametrize("part", ["chat template", "preprocessing"])
def test_what_lies_beside_the_weights_counts(tmp_path: Path, part: str):
    lineage, before = planned(tmp_path)
    if part == "chat template":
        with_template(language(lineage, before), "{{ '' }}" + CHATML)
    else:
        path = tower(lineage, before) / "preprocessor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "image_mean": [0.1, 0.2, 0.3]}))
    _, after = planned(tmp_path)
    assert not set(before.trainings) & set(after.trainings)
    assert before.key != after.key


def test_a_model_card_does_not_count(tmp_path: Path):
    lineage, before = planned(tmp_path)
    (language(lineage, before) / "README.md").write_text("A card.")
    _, after = planned(tmp_path)
    assert before.key == after.key


def test_a_hub_id_is_itself_and_a_shipped_part_its_weights():
    assert checkpoint_fingerprint("some/where") == "some/where"
    # A package's files change with its version alone, and cells of the shipped studies know them.
    assert checkpoint_fingerprint("sailvit:world/tower") == "8cb68801cea26445"


def test_a_template_that_writes_the_date_needs_a_day(tmp_path: Path):
    lineage, cell = planned(tmp_path)
    with_template(language(lineage, cell), "{{ strftime_now('%d %b %Y') }}" + CHATML)
    with pytest.raises(RecipeError, match=r"step refine's language writes the date, .* `set`"):
        planned(tmp_path)
    text = (tmp_path / "trained.yaml").read_text()
    (tmp_path / "trained.yaml").write_text(
        text.replace("set:\n", "set:\n  model.chat_date: 2026-01-31\n", 1)
    )
    lineage, cell = planned(tmp_path)
    assert {str(each.recipe.model.day) for each in lineage.trainings.values()} == {"2026-01-31"}


@pytest.mark.parametrize("part", ["data", "language"])
def test_a_training_whose_files_changed_since_the_plan_is_refused(tmp_path: Path, part: str):
    lineage, cell = planned(tmp_path)
    training = lineage.trainings[cell.trainings[0]]
    recipe, folder = lineage.located(training.recipe), lineage.run(training).path
    if part == "data":
        path = tmp_path / "data" / "chat.json"
        path.write_text(path.read_text().replace("colour is the square", "colour is a square"))
    else:
        with_template(language(lineage, cell), "{{ '' }}" + CHATML)
    found = perform(TrainTask(recipe, folder, training.known))
    assert found.state == "failed"
    what = "other records" if part == "data" else "other files"
    assert f"has {what} than when the study began; start the study again" in found.told
    assert not list(folder.glob("stages/*"))


def test_texts_that_changed_since_the_plan_are_not_measured(tmp_path: Path):
    texts = tmp_path / "texts.jsonl"
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    texts.write_text(json.dumps(row) + "\n")
    source = {"format": "chat", "path": str(texts)}
    measures = {"forgets": {"kind": "text", "of": "refine", "source": source}}
    lineage, cell = planned(tmp_path, measures=measures)
    known = lineage.contents.known({"forgets": cell.measures["forgets"].source})
    texts.write_text(json.dumps({**row, "messages": row["messages"] * 2}) + "\n")
    found = perform(MeasureTask({}, cell.measures, None, known))
    assert found.state == "failed"
    assert "source forgets has other records" in found.told

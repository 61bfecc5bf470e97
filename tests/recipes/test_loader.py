"""Recipes: what a file means, how it is overridden, and what is said when it is wrong."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import Recipe
from sailvit.recipes.dialect import read_yaml, write_line, write_yaml
from sailvit.recipes.loader import dump_recipe, load_recipe, shipped_recipes

TEXT = """\
name: small
model: {tower: towers/mine, language: org/language}
sequence: 512
sources:
  photos: {format: llava, path: data/photos.json}
  world: {format: world, options: {count: 10}}
stages:
  - name: coarse
    train: {connector: 1.0}
    data: {photos: 0.5, world: 0.5}
    optim: {lr: 2e-4}
    length: {samples: 100}
    global_batch: 4
  - name: fine
    train: {connector: 1, tower: {lr: 0.5, last_blocks: 2}}
    data: [photos]
    optim: {lr: 2e-5}
    length: {epochs: 1}
    global_batch: 4
    start_from: {connector: old/connector, tower: recipe}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "small.yaml"
    path.parent.mkdir()
    path.write_text(TEXT)
    return path


def complaint(path: Path, text: str, overrides: tuple[str, ...] = ()) -> str:
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_floats_without_a_dot_are_numbers(file: Path):
    recipe = load_recipe(file, ["stages.1.optim.eps=1E-7"])
    assert recipe.stages[0].optim.lr == 2e-4
    assert recipe.stages[1].optim.eps == 1e-7


@pytest.mark.parametrize("place", ["stages.1.optim.lr", "stages.fine.optim.lr"])
def test_override_by_index_and_by_name(file: Path, place: str):
    assert load_recipe(file, [f"{place}=3e-3"]).stages[1].optim.lr == 3e-3
    assert load_recipe(file).stages[1].optim.lr == 2e-5


def test_override_of_a_field_that_the_file_leaves_out(file: Path):
    recipe = load_recipe(
        file,
        ["model.connector.merge=4", "stages.0.length={tokens: 7}", "model.image.mean=[0, 0, 1]"],
    )
    assert recipe.model.connector.merge == 4
    assert recipe.stages[0].length.tokens == 7
    assert recipe.model.image.mean == (0, 0, 1)


def test_override_reaches_one_of_two_aliases(file: Path):
    shared = TEXT.replace("optim: {lr: 2e-4}", "optim: &optim {lr: 2e-4}").replace(
        "optim: {lr: 2e-5}", "optim: *optim"
    )
    file.write_text(shared)
    recipe = load_recipe(file, ["stages.fine.optim.lr=1"])
    assert [stage.optim.lr for stage in recipe.stages] == [2e-4, 1]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "stages.0.optim.lrr=1",
            "stages.0.optim.lrr: unknown key; did you mean lr? allowed: lr, betas",
        ),
        ("model.connecter.merge=1", "model.connecter: unknown key; did you mean connector?"),
        (
            "stages.fin.optim.lr=1",
            "no item 'fin' in the list; did you mean fine? allowed: coarse, fine, 0, 1",
        ),
        ("stages.7.optim.lr=1", "no item '7' in the list"),
        ("stages.1.optim.lr.peak=1", "would lie inside 2e-05, which is one value"),
        ("stages.1.length.sample=9", "stages.1.length.sample: unknown key; did you mean samples?"),
        ("stages.0.optim.lr", "expected path=value"),
        ("stages..lr=1", "expected path=value"),
        ("stages.0.optim={lr: [", "not valid YAML"),
        ("sequence=many", "sequence: found 'many' (str), expected a valid integer"),
        ("stages.0.data=[]", "`data` names no source"),
        ("stages.0.data={}", "`data` names no source"),
        ("stages.0.micro_batch=99", "micro_batch 99 is more than global_batch"),
        ("stages.0.temperature=5", "`data` gives shares: leave out one"),
        ("parallel.group=2", "`group` belongs to mode hybrid; the mode is replicate"),
        (
            "parallel.reduce=last",
            "`reduce` is about shards; mode replicate adds gradients up after",
        ),
        ("parallel.offload=true", "mode replicate has none; set mode to shard or hybrid"),
    ],
)
def test_wrong_overrides(file: Path, setting: str, expected: str):
    assert expected in complaint(file, TEXT, (setting,))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "sequence: 512",
            "sequence: 0",
            "sequence: found 0 (int), expected greater than or equal to 1",
        ),
        ("sequence: 512", "", "sequence: missing"),
        (
            "format: llava,",
            "formt: llava,",
            "sources.photos.formt: unknown key; did you mean format? allowed: format, ",
        ),
        ("train: {connector: 1.0}", "train: {conector: 1.0}", "stages.0.train.conector: "),
        ("train: {connector: 1.0}", "train: {conector: 1.0}", "did you mean connector?"),
        (
            "last_blocks: 2",
            "last_block: 2",
            "stages.1.train.tower.last_block: unknown key; did you mean last_blocks?",
        ),
        (
            "data: [photos]",
            "data: 3",
            "stages.1.data: found 3 (int), expected a valid dictionary or a valid list",
        ),
        (
            "world: 0.5}",
            "world: -1}",
            "stages.0.data.world.share: found -1 (int), expected greater than 0",
        ),
        (
            "{epochs: 1}",
            "{epochs: 1, samples: 2}",
            "stages.1.length: give exactly one of samples, tokens, epochs",
        ),
        (
            "data: [photos]",
            "data: [fotos]",
            "stage fine mixes source 'fotos', which `sources` does not define",
        ),
        ("name: fine", "name: coarse", "stage names must differ; found twice: coarse"),
        ("name: small", "- 3", "small.yaml:2:1: not valid YAML"),
        (
            "{tower: towers/mine",
            "{tower: null",
            "model.tower: found nothing, expected a valid string",
        ),
    ],
)
def test_wrong_recipes_say_where_what_and_what_instead(
    file: Path, old: str, new: str, expected: str
):
    assert expected in complaint(file, TEXT.replace(old, new, 1))


def test_one_line_per_problem(file: Path):
    wrong = TEXT.replace("sequence: 512", "sequenc: 512\nseed: x").replace("lr: 2e-5", "lr: -1")
    lines = complaint(file, wrong).splitlines()
    places = [line.split(":")[0].strip() for line in lines[1:]]
    assert sorted(places) == ["seed", "sequenc", "sequence", "stages.1.optim.lr"]


def test_union_problem_is_told_once(file: Path):
    lines = complaint(file, TEXT.replace("world: 0.5}", "world: -1}")).splitlines()
    assert len(lines) == 2


def test_what_a_run_monitors_is_checked_and_comes_back(file: Path, tmp_path: Path):
    lines = complaint(file, TEXT, ("monitoring.source=unseen",))
    assert "monitoring.source names 'unseen', which `sources` does not define" in lines
    assert "watch: this setting is now called `monitoring`" in complaint(
        file, TEXT, ("watch.every=9",)
    )
    assert "monitoring.report: this setting is now called `monitoring.loggers`" in complaint(
        file, TEXT, ("monitoring.report=[wandb]",)
    )
    assert "monitoring.loggers" in complaint(file, TEXT, ("monitoring.loggers=[neptune]",))
    made = load_recipe(
        file,
        ["monitoring={every: 20, share: null, source: world, loggers: [tensorboard, trackio]}"],
    )
    assert (made.monitoring.every, made.monitoring.share, made.monitoring.loggers) == (
        20,
        None,
        ("tensorboard", "trackio"),
    )
    (tmp_path / "again.yaml").write_text(dump_recipe(made))
    assert load_recipe(tmp_path / "again.yaml") == made


def test_a_key_twice_names_its_line(file: Path):
    message = complaint(file, TEXT.replace("sequence: 512", "sequence: 512\nname: other"))
    assert f"{file}:4:1: not valid YAML: key 'name' is given twice" in message


@pytest.mark.parametrize(
    "text", ["a: [1", "a: b: c", "\tx: 1", "a: !!python/object:os.system x", "{[1]: 2}: 3"]
)
def test_invalid_yaml_names_file_line_and_column(file: Path, text: str):
    assert re.search(rf"{re.escape(str(file))}:\d+:\d+: not valid YAML", complaint(file, text))


def test_not_a_mapping_and_not_text(file: Path):
    assert "expected a mapping with name, model" in complaint(file, "[1, 2]")
    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(file)


def test_unknown_recipe_names_the_shipped_ones(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"does not exist.*did you mean sailvit-large\?"):
        load_recipe("sailvit-larg")
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_load_by_name_and_by_missing_path(name: str):
    assert load_recipe(name).name == name
    assert (
        load_recipe(name)
        == load_recipe(f"nowhere/{name}.yaml")
        == load_recipe(shipped_recipes()[name])
    )


def test_paths_start_at_the_folder_of_their_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    folder = file.parent
    (folder / "towers/mine").mkdir(parents=True)
    (folder / "old/connector").mkdir(parents=True)
    recipe = load_recipe(file, ["sources.photos.images=pictures"])
    assert recipe.sources["photos"].path == str(folder / "data/photos.json")
    assert recipe.sources["photos"].images == str(here / "pictures")
    assert recipe.model.tower == str(folder / "towers/mine")
    assert recipe.model.language == "org/language"
    assert recipe.stages[1].start_from == {
        "connector": str(folder / "old/connector"),
        "tower": "recipe",
    }


def test_resolved_copy_reads_the_same_anywhere(file: Path, tmp_path: Path):
    recipe = load_recipe(file)
    copy = tmp_path / "runs" / "small" / "recipe.yaml"
    copy.parent.mkdir(parents=True)
    copy.write_text(dump_recipe(recipe))
    assert load_recipe(copy) == recipe
    assert "weight_decay: 0.05" in copy.read_text()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_resolved_copy_of_shipped_recipes(name: str, tmp_path: Path):
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(load_recipe(name)))
    assert load_recipe(copy) == load_recipe(name)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(
        [
            "1e-4",
            "1E5",
            ".5e3",
            "1e",
            "e1",
            "0x1",
            "1_0",
            "yes",
            "~",
            "2024-01-01",
            "1:30",
            "=",
            "<<",
        ]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_written_yaml_reads_back_equal(value: object):
    assert read_yaml(write_yaml(value), "text") == value
    line = write_line(value)
    assert read_yaml(f"a: {line}\nb: {{c: [{line}, 1]}}\n", "text") == {
        "a": value,
        "b": {"c": [value, 1]},
    }
    assert "\n" not in line


@settings(max_examples=60, deadline=None)
@given(
    options=st.dictionaries(st.text(max_size=6), values, max_size=3),
    lr=st.floats(1e-300, 1e300),
    seed=st.integers(),
)
def test_dumped_recipes_load_equal(
    tmp_path_factory: pytest.TempPathFactory, options: dict, lr: float, seed: int
):
    folder = tmp_path_factory.getbasetemp() / "dumped"
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(TEXT)
    recipe = load_recipe(folder / "small.yaml")
    world = recipe.sources["world"].model_copy(update={"options": options})
    stage = recipe.stages[0].model_copy(
        update={"optim": recipe.stages[0].optim.model_copy(update={"lr": lr})}
    )
    changed = recipe.model_copy(
        update={"sources": {**recipe.sources, "world": world}, "stages": [stage], "seed": seed}
    )
    (folder / "copy.yaml").write_text(dump_recipe(changed), encoding="utf-8")
    assert load_recipe(folder / "copy.yaml") == Recipe.model_validate(changed.model_dump())

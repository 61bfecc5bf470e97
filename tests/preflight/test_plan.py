"""The plan: counts, costs and problems of a recipe, from configs alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_models import LANGUAGES, SIDE, TOWERS, mllm
from small_tokenizers import CHATML, byte_tokenizer

from sailvit.core.monitoring import MonitoringConfig
from sailvit.core.recipe import LoraConfig, Recipe
from sailvit.models.languages.adapters import add_adapters
from sailvit.models.packing.attention import PACKED
from sailvit.preflight import memory
from sailvit.preflight.memory import estimate_memory
from sailvit.preflight.mixture import expected_draws
from sailvit.preflight.plan import Plan, plan
from sailvit.preflight.samples import MeanSample
from sailvit.recipes.loader import load_recipe
from sailvit.training.optim.optimizer import freeze


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with configs of small parts, without weights, and a file of captions."""
    root = tmp_path_factory.mktemp("plan")
    for name, config in (("tower", TOWERS["siglip"]), ("language", LANGUAGES["qwen3"])):
        config.save_pretrained(root / name)
    tower = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"height": SIDE, "width": SIDE},
    }
    (root / "tower/preprocessor_config.json").write_text(json.dumps(tower))
    rows = [
        {
            "messages": [
                {"role": "user", "content": "a" * 40},
                {"role": "assistant", "content": "b" * 40},
            ]
        }
    ] * 10
    (root / "text.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def recipe(folder: Path, **changes: object) -> Recipe:
    stage = {
        "name": "one",
        "train": {"connector": 1.0},
        "data": ["text"],
        "optim": {"lr": 1e-3},
        "length": {"samples": 100},
        "global_batch": 2,
    }
    value = {
        "name": "small",
        "model": {"tower": str(folder / "tower"), "language": str(folder / "language")},
        "sequence": 64,
        "sources": {"text": {"format": "llava", "path": str(folder / "text.jsonl")}},
        "stages": [{**stage, **changes.pop("stage", {})}],
    }
    return Recipe.model_validate({**value, **changes})


def problem(made: Plan) -> str:
    assert len(made.problems) == 1
    return made.problems[0]


@pytest.mark.parametrize(
    ("name", "tower"), [("sailvit-large", 309_984_256), ("sailvit-huge", 682_031_616)]
)
def test_shipped_recipes_plan_from_configs_alone(
    name: str, tower: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = plan(load_recipe(name))
    assert made.parameters["tower"] == tower
    assert (made.tile_size, made.tokens_per_tile, made.most_tiles) == (448, 256, 11)
    assert [list(stage.trains) for stage in made.stages] == [
        ["connector"],
        ["tower", "connector"],
        ["tower", "connector", "language"],
    ]
    assert all("is not a file" in text for text in made.problems)
    assert len(made.problems) == 5


def test_shipped_recipe_comes_to_the_published_tokens_and_batches():
    made = plan(load_recipe("sailvit-large"))
    assert sum(stage.tokens for stage in made.stages) == pytest.approx(121e9, rel=0.02)
    samples_per_step = [stage.samples / stage.steps for stage in made.stages]
    assert samples_per_step == pytest.approx([1920, 512, 512], rel=0.001)
    per_sample = [stage.flops / stage.samples for stage in made.stages]
    assert per_sample == sorted(per_sample)


def test_text_alone_costs_the_forward_pass_of_the_language(folder: Path):
    made = plan(recipe(folder))
    (stage,) = made.stages
    language = made.parameters["language"] - 96 * 48  # without embeddings, which the head shares
    assert stage.sample.tiles == 0
    assert stage.sample.tokens == 20  # 80 characters
    assert stage.sample.answers == 10
    expected = 2 * language * 20 + 2 * 96 * 48 * 10 + 2 * 64 * 4 * 20**2
    assert stage.flops / 100 == pytest.approx(expected, rel=0.01)
    assert stage.seconds(stage.flops) == 1
    assert made.problems == ()


def test_with_a_tokenizer_lengths_are_those_of_training(folder: Path, tmp_path: Path):
    language = tmp_path / "language"
    LANGUAGES["qwen3"].save_pretrained(language)
    byte_tokenizer(CHATML).save_pretrained(language)
    made = plan(recipe(folder, model={"tower": str(folder / "tower"), "language": str(language)}))
    assert "by the language's tokenizer" in made.stages[0].sample.basis
    assert made.stages[0].sample.tokens > made.stages[0].sample.answers > 0


@pytest.mark.parametrize(
    ("length", "samples"),
    [({"samples": 7}, 7), ({"tokens": 1000}, 50), ({"epochs": 2.5}, 25)],
    ids=str,
)
def test_length_in_any_unit(folder: Path, length: dict, samples: int):
    assert plan(recipe(folder, stage={"length": length})).stages[0].samples == samples


@pytest.mark.parametrize("unit", ["samples", "tokens"])
def test_a_source_that_is_used_up_counts_as_often_as_it_is_drawn(folder: Path, unit: str):
    text = json.loads((folder / "text.jsonl").read_text().splitlines()[0])
    text["messages"][1]["content"] = "b" * 200
    (folder / "long.jsonl").write_text("\n".join([json.dumps(text)] * 4))
    sources = {
        name: {"format": "llava", "path": str(folder / f"{name}.jsonl")}
        for name in ("text", "long")
    }
    # 92 records of 20 tokens and, twice over, the 4 of 60 tokens: not three of four draws.
    tokens = 92 * 20 + 8 * 60
    change = {
        "data": {"text": 1, "long": {"share": 3, "epochs": 2}},
        "length": {"samples": 100} if unit == "samples" else {"tokens": tokens},
    }
    (stage,) = plan(recipe(folder, sources=sources, stage=change)).stages
    assert stage.sample.tokens == pytest.approx(tokens / 100)
    assert (stage.samples, stage.steps) == (100, math.ceil(tokens / 64 / 2))


def test_draws_go_on_in_the_proportions_of_the_sources_that_are_left():
    shares, each = {"a": 2.0, "b": 1.0, "c": 1.0}, dict.fromkeys("abc", 1.0)
    assert expected_draws(shares, {"a": 10}, 16, each) == {"a": 8, "b": 4, "c": 4}
    assert expected_draws(shares, {"a": 10}, 30, each) == {"a": 10, "b": 10, "c": 10}
    assert expected_draws(shares, {"a": 10, "b": 8}, 30, each) == {"a": 10, "b": 8, "c": 12}
    ended = {"a": 10, "b": 8, "c": 3}
    assert expected_draws(shares, ended, 30, each) == ended


def test_epochs_of_a_missing_source_leave_the_rest_standing(folder: Path):
    sources = {"text": {"format": "llava", "path": str(folder / "no.jsonl")}}
    made = plan(recipe(folder, sources=sources, stage={"length": {"epochs": 1}}))
    assert "sources.text" in problem(made)
    assert "is not a file" in problem(made)
    stage = made.stages[0]
    assert (stage.samples, stage.tokens, stage.steps, stage.flops, stage.seconds(1.0)) == (
        None,
    ) * 5
    assert made.flops is None
    assert stage.memory.total > 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stage": {"train": {"connector": 0.0}}}, "it trains nothing"),
        (
            {"stage": {"objectives": {"nextoken": 1}}},
            "unknown objective 'nextoken'; registered are: next_token",
        ),
        ({"stage": {"objectives": {"contrastive": 1}}}, "needs records of kind caption"),
        ({"stage": {"train": {"tower": {"last_blocks": 9}}}}, "last_blocks is 9"),
        (
            {"stage": {"start_from": {"tower": "/nowhere"}}},
            "stages.0.start_from.tower: /nowhere does not exist",
        ),
        ({"sources": {"text": {"format": "lava", "path": "x"}}}, "format 'lava'; known are llava"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_problems(folder: Path, changes: dict, expected: str):
    assert expected in problem(plan(recipe(folder, **changes)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"connector": {"merge": 3}}, "cannot be merged 3 x 3"),
        ({"image": {"size": 36}}, "not a multiple of the tower's patch size"),
        ({"connector": {"source": "/nowhere"}}, "model.connector.source: /nowhere does not exist"),
        ({"tower": "/nowhere/tower"}, "cannot load the tower: there is no folder /nowhere/tower"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_that_do_not_fit(folder: Path, change: dict, expected: str):
    model = {"tower": str(folder / "tower"), "language": str(folder / "language"), **change}
    assert expected in problem(plan(recipe(folder, model=model)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stage": {"train": {"connector": 1, "tower": 0}}}, "lists tower with share 0"),
        ({"stage": {"save": ["tower"]}}, "the connector trains but is not in `save`"),
        ({"stage": {"micro_batch": 2, "global_batch": 3}}, "not a multiple of micro_batch"),
        ({"sequence": 40000}, "more than the 32768 positions"),
        ({"sequence": 4}, "takes 4 visual tokens"),
        (
            {"stage": {"data": {"text": {"share": 1, "epochs": 1}}, "length": {"samples": 5000}}},
            "its sources end after 10 records",
        ),
        (
            {"stage": {"data": {"text": {"share": 1, "epochs": 1}}, "length": {"epochs": 3}}},
            "its sources end after 10 records",
        ),
        (
            {"stage": {"data": {"text": {"share": 1, "epochs": 1}}, "length": {"tokens": 5000}}},
            "so do the stage and its schedule; length.tokens asks for 5,000 tokens",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_remarks(folder: Path, changes: dict, expected: str):
    made = plan(recipe(folder, **changes))
    assert any(expected in remark for remark in made.remarks), made.remarks


def searching(samples: int = 100, **search: object) -> dict[str, object]:
    return {
        "stage": {"schedule": {"name": "adalrs", "search": search}, "length": {"samples": samples}}
    }


def test_a_search_without_time_is_remarked(folder: Path):
    made = plan(recipe(folder, **searching(window=4)))
    windows = made.stages[0].steps * (0.5 - 0.03) / 4
    assert not made.problems
    assert f"lie {windows:.1f} windows of 4 steps" in made.remarks[-1]
    assert "lower search.window" in made.remarks[-1]
    assert not [
        text
        for text in plan(recipe(folder, **searching(1000, window=4))).remarks
        if "windows" in text
    ]


def test_a_way_back_on_the_device_takes_memory(folder: Path):
    without, beside = (plan(recipe(folder, **searching(keep=keep))) for keep in ("cpu", "device"))
    trained = sum(beside.stages[0].trains.values())
    assert beside.stages[0].memory.total - without.stages[0].memory.total == 12 * trained


def test_layers_of_a_part_without_blocks_are_a_problem(folder: Path):
    made = plan(recipe(folder, stage={"train": {"connector": {"layer_decay": 0.9}}}))
    assert "layer_decay needs a part made of blocks" in problem(made)


def test_spare_sources_are_named(folder: Path):
    text = {"format": "llava", "path": str(folder / "text.jsonl")}
    made = recipe(folder, sources={"text": text, "other": text})
    assert "no stage uses other" in plan(made).remarks
    looked_at = made.model_copy(update={"monitoring": MonitoringConfig(source="other")})
    assert "no stage uses other" not in plan(looked_at).remarks


def saved_bytes(model: torch.nn.Module, batch: object, precision: str) -> int:
    """Bytes that autograd keeps for the backward pass, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    bf16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), bf16:
        kept = model(batch)
    del kept
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_activation_estimate_is_near_what_autograd_keeps(folder: Path, parts: int, precision: str):
    from test_flops import ROWS, SEGMENT, batch

    train = dict.fromkeys(("connector", "tower", "language")[:parts], 1.0)
    changes = {"sequence": SEGMENT * 2, "precision": precision}
    loaded = recipe(
        folder, **changes, stage={"train": train, "micro_batch": ROWS, "global_batch": ROWS}
    )
    model, given = mllm("aimv2"), batch(4)
    freeze(model, loaded.stages[0])
    sample = MeanSample(1.0, SEGMENT, SEGMENT**2, 7.0, 0.0, "")
    memory = estimate_memory(model, loaded, loaded.stages[0], sample, language_runs=True)
    copies = memory.weights - 4 * sum(p.numel() for p in model.parameters())
    scores = given.answer_tokens * 96 * 12
    estimate = memory.activations - scores + copies
    assert estimate == pytest.approx(saved_bytes(model, given, precision), rel=0.2)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (memory.gradients, memory.moments) == (4 * trained, 8 * trained)


@pytest.mark.parametrize(
    "data",
    [["text", "gone"], {"text": {"share": 1, "epochs": 1}, "gone": {"share": 1, "epochs": 1}}],
)
def test_a_source_that_cannot_be_opened_is_a_problem_however_it_is_mixed(
    folder: Path, data: object
):
    text = {"format": "llava", "path": str(folder / "text.jsonl")}
    gone = {"format": "llava", "path": str(folder / "gone.jsonl")}
    made = plan(recipe(folder, sources={"text": text, "gone": gone}, stage={"data": data}))
    assert problem(made).startswith("sources.gone: ")
    assert made.stages[0].samples == 100


def test_a_bound_on_tiles_makes_more_steps(folder: Path, tmp_path: Path):
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png", "text": "red"} for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = {"pairs": {"format": "captions", "path": str(tmp_path / "rows.jsonl")}}
    free, bound = (
        plan(recipe(folder, sequence=4096, sources=sources, stage={"data": ["pairs"], **more}))
        .stages[0]
        .steps
        for more in ({}, {"pack_tiles": 5})
    )
    assert free == 1
    assert bound == 100 / 5 / 2


@pytest.mark.parametrize(
    ("changes", "tiles"),
    [
        ({}, 8),
        ({"micro_batch": 8}, 0),
        ({"negatives": "micro_batch"}, 0),
        ({"objectives": {"next_token": 1.0}}, 0),
        ({"train": {"tower": 1.0, "connector": 1.0}}, 0),
    ],
)
def test_the_features_that_an_accumulated_step_keeps_are_counted(
    folder: Path, changes: dict[str, object], tiles: int
):
    """Up to the room that the recipe gives them; a sample of one tile fills a pack here."""
    settings = {"global_batch": 8, "objectives": {"next_token": 1.0, "contrastive": 0.1}, **changes}
    sample = MeanSample(1.0, 64, 64**2, 7.0, 1.0, "")
    model = mllm("siglip")
    tile = model.tower.patches * model.tower.width * 4
    for room, kept in ((2.0, tiles * tile), (2.5 * tile / 2**30, min(tiles, 2.5) * tile)):
        loaded = recipe(folder, stage=settings, parallel={"kept_features": room})
        freeze(model, loaded.stages[0])
        memory = estimate_memory(model, loaded, loaded.stages[0], sample, language_runs=True)
        assert memory.features == pytest.approx(kept)
        assert memory.total >= memory.weights + memory.activations + memory.features


@pytest.mark.parametrize(("processes", "mode"), [(1, "replicate"), (2, "replicate"), (2, "shard")])
def test_replicas_of_several_processes_take_buckets_as_large_as_the_gradients(
    folder: Path, monkeypatch: pytest.MonkeyPatch, processes: int, mode: str
):
    monkeypatch.setattr(memory, "world", lambda: processes)
    [planned] = plan(recipe(folder, parallel={"mode": mode})).stages
    expected = planned.memory.gradients if (processes, mode) == (2, "replicate") else 0
    assert planned.memory.buckets == expected


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("language", [0.0, 1.0])
def test_activations_of_adapters_are_near_what_autograd_keeps(
    folder: Path, language: float, precision: str, dropout: float
):
    from test_flops import ROWS, SEGMENT, batch

    train = {"connector": 1.0, "language": language}
    changes = {"sequence": SEGMENT * 2, "precision": precision}
    loaded = recipe(
        folder, **changes, stage={"train": train, "micro_batch": ROWS, "global_batch": ROWS}
    )
    model, given = mllm("aimv2"), batch(4)
    model.language.set_attn_implementation("sdpa")
    model.adapters = add_adapters(model.language, LoraConfig(rank=4, dropout=dropout), 0)
    model.language.set_attn_implementation(PACKED)
    freeze(model, loaded.stages[0])
    sample = MeanSample(1.0, SEGMENT, SEGMENT**2, 7.0, 0.0, "")
    memory = estimate_memory(model, loaded, loaded.stages[0], sample, language_runs=True)
    copies = memory.weights - 4 * sum(p.numel() for p in model.parameters())
    estimate = memory.activations - given.answer_tokens * 96 * 12 + copies
    assert estimate == pytest.approx(saved_bytes(model, given, precision), rel=0.2)


def test_adapters_cost_their_own_moments_and_states(folder: Path):
    made = recipe(folder, stage={"train": {"connector": 1.0, "language": 1.0}})
    whole = plan(made)
    model = made.model.model_copy(update={"lora": LoraConfig(rank=4)})
    thin = plan(made.model_copy(update={"model": model}))
    adapters = thin.stages[0].trains["language"]
    assert adapters == thin.parameters["language"] - whole.parameters["language"]
    # Four blocks: q, k, v and o of 48 x 64, 48 x 32, 48 x 32, 64 x 48; gate, up, down of 48 x 64.
    assert adapters == 4 * 4 * (2 * (48 + 64) + 2 * (48 + 32) + 3 * (48 + 64))
    trained = adapters + thin.stages[0].trains["connector"]
    assert thin.stages[0].memory.moments == 8 * trained
    assert thin.storage is not None
    assert whole.storage is not None
    assert thin.storage.state == 12 * trained
    assert thin.storage.parts == whole.storage.parts
    assert thin.stages[0].flops < whole.stages[0].flops


def test_moments_of_one_byte_are_planned_and_so_are_their_states(folder: Path):
    train = {"connector": 1.0, "language": 1.0}
    full, small = (
        plan(recipe(folder, stage={"train": train, "optim": {"lr": 1e-3, "state": state}}))
        for state in ("fp32", "8bit")
    )
    trained = sum(full.stages[0].trains.values())
    # Only the connector's first matrix has rows of a multiple of 128: 4 x 32 columns, 48 rows.
    coded = 4 * 32 * 48
    expected = 8 * (trained - coded) + 2 * (1 + 4 / 128) * coded
    assert (full.stages[0].memory.moments, small.stages[0].memory.moments) == (
        8 * trained,
        expected,
    )
    assert full.storage is not None
    assert small.storage is not None
    assert full.storage.state - small.storage.state == 8 * trained - expected

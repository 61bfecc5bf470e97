"""Native resolution through the whole model: packs, objectives, kept features, answers and FLOPs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from changed_runs import captured
from torch.utils.flop_counter import FlopCounterMode

from sailvit.core.batch import Batch
from sailvit.core.errors import ModelError
from sailvit.core.recipe import ConnectorConfig, ParallelConfig
from sailvit.core.records import Record
from sailvit.data.processing.collate import collate
from sailvit.inference.answers import answer
from sailvit.inference.model import RunModel
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.measures.flops import flops_model
from sailvit.models.structure.mllm import MLLM
from sailvit.models.structure.parallel import parallelize
from sailvit.models.towers.native_proof import row_reader
from tiny_parts import TOWERS, Parts, picture, record, samples, save_tower, single_batches

IMAGE = {"mode": "native", "max_patches": 200}


def built(parts: Parts, tower: str = "dinov2", **settings: Any) -> ModelBundle:
    return parts.build(tower, image=IMAGE, **settings)


def records() -> list[Record]:
    return [
        record("text", answer="blue"),
        record("wide", picture(1, 90, 30), answer="a small red square"),
        record("two", picture(2, 20, 70), picture(3, 33, 32), answer="left"),
        record("caption", picture(4, 1, 1), answer="red", kind="caption"),
    ]


def batch(bundle: ModelBundle) -> Batch:
    return collate([samples(bundle, records())])


@pytest.mark.parametrize("tower", ["aimv2", "dinov2", "siglip2"])
def test_a_pack_gives_the_scores_and_gradients_of_one_sample_at_a_time(parts: Parts, tower: str):
    bundle = built(parts, tower)
    model, made = bundle.mllm.eval(), samples(bundle, records())
    results = []
    for batches in ([collate([made])], single_batches(made)):
        model.zero_grad()
        logits = torch.cat([model(given).logits for given in batches])
        logits.square().sum().backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((logits.detach(), grads))
    (packed, found), (alone, expected) = results
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    assert found.keys() == expected.keys()
    for name, grad in found.items():
        assert (grad - expected[name]).norm() <= 1e-5 * expected[name].norm() + 1e-5, name


def test_at_the_towers_size_the_whole_model_gives_what_fixed_mode_gives(parts: Parts):
    shown = [record("one", picture(1), answer="red"), record("two", picture(2), picture(3))]
    native, fixed = built(parts), parts.build("dinov2")
    logits = [
        bundle.mllm.eval()(collate([samples(bundle, shown)])).logits for bundle in (native, fixed)
    ]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


def test_kept_features_spare_the_tower(parts: Parts):
    bundle = built(parts)
    model, given = bundle.mllm.eval(), batch(bundle)
    features = model.features(given.tiles, given.grids)
    assert features.shape == (len(given.tiles), 4, 32)
    kept = dataclasses.replace(given, features=features)
    assert torch.equal(model(kept).logits, model(given).logits)


def test_text_alone_runs_no_tower_unless_other_processes_wait(parts: Parts):
    bundle = built(parts)
    model = bundle.mllm
    text = collate([samples(bundle, records()[:1])])
    calls: list[int] = []
    model.tower.register_forward_hook(lambda *_: calls.append(1))
    assert model(text).visual.shape == (0, 1, 32)
    assert not calls
    model.everywhere = True
    (model(text).logits.sum()).backward()
    assert calls == [1]
    assert all(p.grad is not None for p in model.connector.parameters())


def test_a_grid_that_cannot_be_merged_at_the_towers_size_can_in_native_mode(parts: Parts):
    config = parts.config("dinov2", image=IMAGE, connector=ConnectorConfig(merge=3))
    model = build(config, 0).mllm
    assert (model.tile_size, model.visual_tokens) == (24, 1)
    with pytest.raises(ModelError, match="cannot be merged 3 x 3"):
        build(parts.config("dinov2", connector=ConnectorConfig(merge=3)), 0)


def test_answers_are_those_of_each_question_alone(parts: Parts):
    bundle = built(parts)
    together = answer(bundle, records(), longest=5)
    assert together == [answer(bundle, [one], longest=5)[0] for one in records()]
    assert any(together)


def test_flops_count_each_images_own_grid(parts: Parts):
    bundle = built(parts)
    model, given = bundle.mllm, batch(bundle)
    flops = flops_model(model)
    pictures = given.pictures
    assert pictures == (12, 4, 4, 4)
    tokens, squares = flops.tower_tokens(
        len(given.tiles), len(pictures), sum(tiles**2 for tiles in pictures)
    )
    assert (tokens, squares) == (49 + 3 * 17, 49**2 + 3 * 17**2)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model.eval().features(given.tiles, given.grids).sum().backward()
    counted = float(counter.get_total_flops())
    assert flops.tower.step(tokens, squares, trained_below=False) == pytest.approx(
        counted, rel=0.02
    )


def test_the_processors_inputs_carry_the_grids_and_generate_what_chat_does(parts: Parts):
    model = RunModel(built(parts))
    talks = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    ] * 2
    shown = [[picture(1, 90, 30)], [picture(2, 20, 70)]]
    inputs = model.processor(talks, shown)
    assert inputs["image_grids"].tolist() == [[2, 6], [4, 1]]
    rows = model.generate(**inputs, max_new_tokens=4)
    assert model.processor.decode(rows[0]) == model.chat(talks[0], shown[0], max_new_tokens=4)
    alone = model.generate(**model.processor(talks[1], shown[1]), max_new_tokens=4)
    assert torch.equal(rows[1], alone[0])


@pytest.mark.parametrize(
    ("tower", "row"),
    [
        ("aimv2", False),
        pytest.param("aimv2", True, marks=pytest.mark.slow),
        pytest.param("dinov2", False, marks=pytest.mark.slow),
        pytest.param("siglip2", True, marks=pytest.mark.slow),
    ],
)
def test_compiled_blocks_give_the_same_whatever_the_grids(
    parts: Parts, tmp_path: Path, tower: str, row: bool
):
    """A call per grid, as on the CPU, and all images in one row, as on a GPU and in shards."""
    # One block, as each is compiled by itself; names of outputs go by the number of blocks.
    known = TOWERS[tower].to_dict().items()
    kept = {name: value for name, value in known if not name.startswith(("out_", "stage_"))}
    save_tower(type(TOWERS[tower])(**{**kept, "num_hidden_layers": 1}), tmp_path / "tower")
    model = parts.config(image=IMAGE).model_copy(update={"tower": str(tmp_path / "tower")})
    plain, other = (build(model, 0).mllm for _ in range(2))
    for model in (plain, other) if row else ():
        model.tower.row = row_reader(model.tower, 2)
        assert model.tower.row is not None
    with captured("aot_eager"), torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        parallelize(other, ParallelConfig(compile=True), torch.device("cpu"), bf16=False)
        found = [features_and_gradients(model) for model in (plain, other)]
    scale = max(float(tensor.abs().max()) for tensor in found[0])
    for one, two in zip(*found, strict=True):
        assert (one - two).abs().max() <= 1e-5 * scale


def features_and_gradients(model: MLLM) -> list[torch.Tensor]:
    """Of two batches of other grids."""
    model.train()
    made: list[torch.Tensor] = []
    for grids in (((2, 6), (4, 1)), ((1, 1), (3, 2), (1, 1))):
        count = sum(rows * columns for rows, columns in grids)
        drawn = torch.Generator().manual_seed(count)
        tiles = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=drawn)
        features = model.features(tiles, grids)
        assert features is not None
        features.square().mean().backward()
        made.append(features.detach())
    weights = model.tower.model.parameters()
    return [*made, *(weight.grad for weight in weights if weight.grad is not None)]

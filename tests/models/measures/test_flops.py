"""FLOPs: the count from matrices equals what torch counts while it runs, whatever trains."""

from __future__ import annotations

import pytest
import torch
from small_models import LANGUAGES, PATCH, SIDE, TEXT, TOWERS, mllm
from tiny_languages import language_of, model_of
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Qwen3MoeConfig
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from sailvit.core.batch import IGNORED, Batch
from sailvit.core.recipe import Stage
from sailvit.models.blocks import find_blocks
from sailvit.models.measures.flops import FlopsModel, attention_width, flops_model, part_flops
from sailvit.models.measures.peak import datasheet_peak, device_peak, matmul_rate
from sailvit.models.structure.mllm import MLLM
from sailvit.models.towers.tower import Preprocessing, Tower
from sailvit.training.optim.optimizer import freeze

SEGMENT, ROWS = 24, 2


def batch(tiles: int) -> Batch:
    """Segments of equal length, so that packed attention pads nothing; the first ones hold one tile of 4 tokens."""
    count = ROWS * 2
    tokens = torch.randint(0, 90, (count, SEGMENT), generator=torch.Generator().manual_seed(0))
    tokens[:tiles, :4] = 95
    labels = torch.full_like(tokens, IGNORED)
    labels[:, -7:] = 3
    return Batch(
        tokens=tokens.reshape(ROWS, -1),
        positions=torch.arange(SEGMENT).repeat(count).reshape(ROWS, -1),
        labels=labels.reshape(ROWS, -1),
        boundaries=torch.arange(0, count * SEGMENT + 1, SEGMENT, dtype=torch.int32),
        longest=SEGMENT,
        tiles=torch.zeros(tiles, 3, SIDE, SIDE, dtype=torch.uint8),
        image_of_tile=torch.arange(tiles),
        image_ids=torch.zeros(tiles, dtype=torch.int64),
        caption_of=torch.full((ROWS, 2 * SEGMENT), -1),
        sample_ids=("a",) * count,
        padding=0,
    )


def stage(train: dict) -> Stage:
    given = {
        "name": "x",
        "train": train,
        "data": ["a"],
        "optim": {"lr": 1},
        "length": {"samples": 1},
    }
    return Stage.model_validate({**given, "global_batch": 1})


def counted(model: MLLM, batch: Batch) -> float:
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        logits = model(batch).logits
        if logits.requires_grad:
            logits.sum().backward()
    return float(counter.get_total_flops())


def predicted(flops: FlopsModel, batch: Batch, factor: float = 2.0) -> float:
    """The step's FLOPs; `factor` 2 undoes the halving of causal attention, which the counter does not know of."""
    squares = float((batch.boundaries.diff() ** 2).sum()) * factor
    return flops.step(
        tiles=len(batch.tiles),
        segment_squares=squares,
        tokens=batch.tokens.numel(),
        answer_tokens=batch.answer_tokens,
    )


TRAINS = [
    {"connector": 1},
    {"connector": 1, "tower": 1},
    {"connector": 1, "tower": 1, "language": 1},
    {"tower": 1},
    {"language": 1},
    {"tower": {"last_blocks": 1}},
    {"language": {"last_blocks": 2}},
    {"connector": 1, "language": {"last_blocks": 1}},
]


@pytest.mark.parametrize("train", TRAINS, ids=str)
@pytest.mark.parametrize("tiles", [0, 3])
def test_count_equals_what_runs(train: dict, tiles: int):
    model, given = mllm(), batch(tiles)
    freeze(model, stage(train))
    assert predicted(flops_model(model), given) == pytest.approx(counted(model, given), rel=0.005)


@pytest.mark.parametrize("tower", sorted(TOWERS))
@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_families(tower: str, language: str):
    model, given = mllm(tower, language), batch(3)
    freeze(model, stage({"connector": 1, "tower": 1, "language": 1}))
    assert predicted(flops_model(model), given) == pytest.approx(counted(model, given), rel=0.01)


def test_frozen_parts_cost_less_and_text_alone_costs_only_the_forward_pass():
    model, costs = mllm(), []
    for train in TRAINS[:3]:
        freeze(model, stage(train))
        costs.append(predicted(flops_model(model), batch(3)))
    assert costs == sorted(costs)
    freeze(model, stage({"connector": 1}))
    with_text, forward = flops_model(model), counted(model, batch(0))
    # Some versions of transformers work out rotary angles by a matrix product, 0.01 % of this.
    assert predicted(with_text, batch(0)) == pytest.approx(forward, rel=1e-3)
    assert predicted(with_text, batch(3)) > 1.5 * forward


def test_causal_attention_counts_half_of_the_pairs():
    flops, given = flops_model(mllm()), batch(0)
    one, two = predicted(flops, given, 1.0), predicted(flops, given, 2.0)
    width, layers, squares = 4 * 16, 4, 4 * SEGMENT**2
    assert two - one == 3 * 2 * width * layers * squares


def test_without_the_language_only_tower_and_connector_count():
    model = mllm()
    flops = flops_model(model, language_runs=False)
    assert flops.step(tiles=0, segment_squares=9, tokens=9, answer_tokens=9) == 0
    assert flops.step(tiles=1, segment_squares=0, tokens=0, answer_tokens=0) > 0


def test_attention_counts_where_the_towers_config_names_no_heads():
    """Heads stand in the blocks alone, as in timm's models; Qwen-VL's config calls them otherwise."""
    config = Qwen2VLVisionConfig(
        depth=3, embed_dim=40, hidden_size=32, num_heads=5, mlp_ratio=2, patch_size=PATCH
    )
    tower = Qwen2VisionTransformerPretrainedModel._from_config(config)
    model = mllm()
    model.tower = Tower(tower, Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3))
    # 3 blocks of 5 heads, 8 wide: 4 FLOPs per pair of tokens and number of a head.
    assert flops_model(model).tower.forward.per_square == 3 * 4 * 5 * 8


def test_attention_of_layers_that_differ_counts_as_the_first_ones():
    """Gemma 4's config refuses to name a head's width, as its layers have several."""
    model = model_of(language_of("gemma4_unified_text"))
    squares = flops_model(model).language.forward.per_square
    first = model.language.config.per_layer_config[0]
    blocks = len(find_blocks(model.language)[1])
    assert squares == blocks * 2 * first.num_attention_heads * first.head_dim


def test_only_the_chosen_experts_count():
    sizes = {**TEXT, "moe_intermediate_size": 20, "num_experts": 8, "num_experts_per_tok": 2}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen3MoeConfig(**sizes, decoder_sparse_step=1))
    flops = part_flops(model, head=model.get_output_embeddings())
    attention = 48 * (64 + 32 + 32) + 64 * 48
    router, experts = 48 * 8, 2 * (3 * 48 * 20)
    assert flops.forward.per_token == pytest.approx(
        2 * 4 * (attention + router + experts), rel=0.03
    )


# Experts as one tensor, stacked as rows, in modules of other names; latent attention with and without experts.
@pytest.mark.parametrize(
    "family", ["gpt_oss", "dbrx", "jetmoe", "minicpm3", "deepseek_v3", "aria_text"]
)
def test_experts_and_latent_attention_cost_what_torch_counts(family: str):
    language = language_of(family).eval()
    if hasattr(language, "set_experts_implementation"):
        # The counter does not know of the grouped matrix products.
        language.set_experts_implementation("eager")
    tokens = torch.randint(3, 90, (1, 64), generator=torch.Generator().manual_seed(0))
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        language(input_ids=tokens, use_cache=False)
    head = language.get_output_embeddings()
    # All pairs, not the half of them that is causal, as the counter does.
    pairs = part_flops(language, pair_flops=4.0 * attention_width(language.config), head=head)
    forward = pairs.forward.flops(64, 64**2) + 64 * 2 * head.weight.numel()
    # Routers are not counted: below one percent.
    assert forward == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_idle_heads_do_not_count():
    tower = mllm("siglip").tower
    with_head, without = part_flops(tower.model), part_flops(tower.model, idle=tower.idle)
    assert without.forward.per_token < with_head.forward.per_token
    assert len(find_blocks(tower.model)[1]) == 3


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA H200", 989e12),
        ("Unheard Of", None),
    ],
)
def test_datasheet(name: str, peak: float | None):
    assert datasheet_peak(name) == peak


def test_measured_peak_is_a_plausible_rate():
    rate = matmul_rate(torch.device("cpu"), torch.float32, seconds=0.05)
    assert 1e8 < rate < 1e15
    assert device_peak(torch.device("cpu"), "fp32", seconds=0.05) == pytest.approx(rate, rel=0.9)

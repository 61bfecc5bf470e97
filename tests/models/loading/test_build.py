"""Loading: preprocessor configs in their spellings, dual checkpoints, the placeholder token, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_tokenizers import byte_tokenizer
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPConfig,
    CLIPTextConfig,
    Siglip2Config,
    Siglip2TextConfig,
    SiglipConfig,
    SiglipTextConfig,
)

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ConnectorConfig, ImageConfig
from sailvit.data.processing.collate import collate
from sailvit.models.loading.build import build
from sailvit.models.loading.embedding_table import words_of
from sailvit.models.loading.folders import save_part
from sailvit.models.loading.parts import resolve_source
from sailvit.models.towers.preprocessing import read_preprocessing
from tiny_parts import (
    LANGUAGES,
    PREPROCESSOR,
    SIDE,
    TOWERS,
    VOCABULARY,
    Parts,
    mixed_records,
    samples,
    save_tower,
)

MEAN, STD = {"image_mean": [0.5] * 3}, {"image_std": [0.25] * 3}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
TEXT |= {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


@pytest.mark.parametrize(
    ("spelling", "size"),
    [
        ({"size": {"height": 224, "width": 224}}, 224),
        ({"size": {"shortest_edge": 224}}, 224),
        ({"size": 448}, 448),
        (
            {
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
            },
            224,
        ),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}, 224),
        (
            {
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": False,
            },
            256,
        ),
        ({"max_num_patches": 256, "patch_size": 16}, 256),
    ],
    ids=str,
)
def test_spellings_of_the_size(spelling: dict, size: int):
    read = read_preprocessing({**spelling, **MEAN, **STD}, "tower")
    assert (read.size, read.mean, read.std) == (size, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    "preprocessor",
    [{}, {"size": 224, **MEAN}, {**MEAN, **STD}, {"size": {"longest_edge": 3}, **MEAN, **STD}],
    ids=str,
)
def test_an_incomplete_preprocessor_config_is_refused(preprocessor: dict):
    with pytest.raises(ModelError, match=r"expected all three; set model\.image\.size"):
        read_preprocessing(preprocessor, "tower")


def test_a_tower_without_preprocessor_config_needs_the_recipe(parts: Parts, tmp_path: Path):
    save_tower(TOWERS["siglip"], tmp_path / "tower", preprocessor=None)
    config = parts.config(tower="siglip").model_copy(update={"tower": str(tmp_path / "tower")})
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json.*add the file or set"):
        build(config, 0)
    image = ImageConfig(size=SIDE, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    made = build(config.model_copy(update={"image": image}), 0)
    assert made.mllm.tower.preprocessing.mean == (0.1, 0.2, 0.3)
    assert made.preprocessor["image_mean"] == [0.1, 0.2, 0.3]


def test_the_recipe_overrides_size_and_says_so_in_the_saved_config(parts: Parts):
    made = parts.build("siglip", image=ImageConfig(size=48, max_tiles=3, thumbnail=False))
    assert made.mllm.tower.preprocessing.size == 48
    assert made.preprocessor["size"] == {"height": 48, "width": 48}
    layout = made.layout
    assert (layout.tile_size, layout.tokens_per_tile, layout.max_tiles, layout.thumbnail) == (
        48,
        9,
        3,
        False,
    )


@pytest.mark.parametrize(
    ("dual", "text", "vision"),
    [
        (CLIPConfig, CLIPTextConfig, "clip"),
        (SiglipConfig, SiglipTextConfig, "siglip"),
        (Siglip2Config, Siglip2TextConfig, "siglip2"),
    ],
)
def test_a_checkpoint_of_two_towers_loads_as_its_vision_half(
    parts: Parts, tmp_path: Path, dual: type, text: type, vision: str
):
    config = dual(
        text_config=text(**TEXT).to_dict(),
        vision_config=TOWERS[vision].to_dict(),
        projection_dim=16,
    )
    torch.manual_seed(4)
    whole = AutoModel.from_config(config)
    whole.save_pretrained(tmp_path / "dual")
    (tmp_path / "dual/preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    made = build(parts.config().model_copy(update={"tower": str(tmp_path / "dual")}), 0)
    half = made.mllm.tower.model
    assert half.config.model_type == TOWERS[vision].model_type
    expected = whole.vision_model.state_dict()
    found = half.state_dict()
    assert len(found) > 10
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name.removeprefix("vision_model.")])
    save_part(made, "tower", tmp_path / "half")
    again = AutoModel.from_pretrained(tmp_path / "half")
    assert type(again) is type(half)
    assert all(torch.equal(tensor, found[name]) for name, tensor in again.state_dict().items())


def without(folder: str, copy: Path, weight: str) -> str:
    shutil.copytree(folder, copy)
    tensors = load_file(copy / "model.safetensors")
    names = [name for name in tensors if weight in name]
    assert names
    save_file(
        {n: t for n, t in tensors.items() if n not in names},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    return str(copy)


def test_missing_weights_are_refused(parts: Parts, tmp_path: Path):
    tower = without(parts.tower("siglip"), tmp_path / "tower", "layers.1.mlp.fc1.weight")
    with pytest.raises(ModelError, match=r"lacks 1 weights.*layers\.1\.mlp\.fc1\.weight"):
        build(parts.config().model_copy(update={"tower": tower}), 0)
    language = without(
        parts.language("llama"), tmp_path / "language", "layers.0.self_attn.q_proj.weight"
    )
    with pytest.raises(ModelError, match=r"lacks 1 weights.*q_proj"):
        build(parts.config().model_copy(update={"language": language}), 0)


def test_a_missing_pooling_head_is_no_loss(parts: Parts, tmp_path: Path):
    tower = without(parts.tower("siglip"), tmp_path / "tower", "head.")
    assert build(parts.config().model_copy(update={"tower": tower}), 0).mllm.tower.idle


@pytest.mark.parametrize("part", ["tower", "language"])
def test_a_part_that_is_not_there_is_named(parts: Parts, tmp_path: Path, part: str):
    config = parts.config().model_copy(update={part: str(tmp_path / "nowhere")})
    with pytest.raises(ModelError, match=f"cannot load the {part}: there is no folder .*nowhere"):
        build(config, 0)
    with pytest.raises(ModelError, match="no shipped checkpoint 'sailvit:nothing'"):
        resolve_source("sailvit:nothing")


def test_a_hub_id_out_of_reach_is_said_to_be_one(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = parts.config().model_copy(update={"tower": "some/tower"})
    with pytest.raises(
        ModelError, match=r"^cannot load the tower 'some/tower'.*Check the name and the connection"
    ):
        build(config, 0)


def test_a_connector_folder_without_a_connector_is_refused(parts: Parts, tmp_path: Path):
    with pytest.raises(ModelError, match="cannot load the connector from the folder"):
        parts.build(connector=ConnectorConfig(source=str(tmp_path)))


@pytest.mark.parametrize("part", ["tower", "language"])
def test_pickled_weights_are_not_read(parts: Parts, tmp_path: Path, part: str):
    origin = Path(getattr(parts.config(), part))
    shutil.copytree(origin, tmp_path / "old", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(origin / "model.safetensors"), tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=f"cannot load the {part} from the folder .*safetensors"):
        build(parts.config().model_copy(update={part: str(tmp_path / "old")}), 0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_missing_placeholder_is_added_saved_and_found_again(
    parts: Parts, tmp_path: Path, language: str
):
    config = parts.config(language=language, placeholder="<|vision|>")
    made = build(config, 0)
    known = len(AutoTokenizer.from_pretrained(parts.language(language)))
    assert made.layout.placeholder_id == known
    size = made.mllm.language.get_input_embeddings().num_embeddings
    assert size == VOCABULARY or size > known
    save_part(made, "language", tmp_path / "language")
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "language").convert_tokens_to_ids("<|vision|>")
        == known
    )
    again = build(config.model_copy(update={"language": str(tmp_path / "language")}), 7)
    assert again.layout.placeholder_id == known
    weights = again.mllm.language.state_dict()
    assert all(
        torch.equal(weights[name], tensor)
        for name, tensor in made.mllm.language.state_dict().items()
    )


def test_other_special_tokens_stay_special(parts: Parts, tmp_path: Path):
    made = parts.build(placeholder="<|vision|>")
    save_part(made, "language", tmp_path / "language")
    for tokenizer in (made.tokenizer, AutoTokenizer.from_pretrained(tmp_path / "language")):
        ids = tokenizer(
            "<|im_start|>red<|vision|> circle<|im_end|>", add_special_tokens=False
        ).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == "red circle"
        assert set(byte_tokenizer().all_special_tokens) <= set(tokenizer.all_special_tokens)


def test_ids_may_have_gaps(parts: Parts, tmp_path: Path):
    """The number of tokens is then less than the highest id, which has its own row."""
    folder = tmp_path / "gaps"
    shutil.copytree(parts.language("llama"), folder)
    file = folder / "tokenizer.json"
    told = json.loads(file.read_text())
    last = max(told["model"]["vocab"], key=told["model"]["vocab"].get)
    told["model"]["vocab"][last] = VOCABULARY + 40
    file.write_text(json.dumps(told))
    asked = parts.config(image=ImageConfig(wrap=("<pic>", "</pic>"))).model_copy(
        update={"language": str(folder)}
    )
    made = build(asked, 0)
    assert made.tokenizer.convert_tokens_to_ids(last) == VOCABULARY + 40
    rows = made.mllm.language.get_input_embeddings().weight
    ids = made.tokenizer.convert_tokens_to_ids(["<pic>", "</pic>"])
    assert len(rows) == VOCABULARY + 41 > len(made.tokenizer)
    for found in ids:
        assert torch.allclose(rows[found], rows[: min(ids)].mean(dim=0))
    assert set(words_of(made.tokenizer, len(rows))) <= set(made.tokenizer.get_vocab().values())


def test_embeddings_grow_with_the_tokenizer(parts: Parts, tmp_path: Path):
    """A table that ends with its tokenizer gets one more row, drawn from the seed; the rest stays."""
    tokenizer = byte_tokenizer()
    config = LANGUAGES["llama"].__class__(
        **{**LANGUAGES["llama"].to_dict(), "vocab_size": len(tokenizer)}
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "full")
    tokenizer.save_pretrained(tmp_path / "full")
    asked = parts.config(placeholder="<|vision|>").model_copy(
        update={"language": str(tmp_path / "full")}
    )
    one, two, other = (build(asked, seed).mllm.language for seed in (0, 0, 1))
    table = one.get_input_embeddings().weight
    assert (
        table.shape[0]
        == len(tokenizer) + 1
        == one.config.vocab_size
        == one.get_output_embeddings().weight.shape[0]
    )
    original = load_file(tmp_path / "full/model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(table[:-1], original)
    assert torch.equal(table, two.get_input_embeddings().weight)
    assert not torch.equal(table[-1], other.get_input_embeddings().weight[-1])


def test_the_connector_is_drawn_from_the_seed_alone(parts: Parts):
    torch.manual_seed(1)
    one = build(parts.config(), 5).mllm.connector.state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two = build(parts.config(), 5).mllm.connector.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = build(parts.config(), 6).mllm.connector.state_dict()
    assert not torch.equal(one["up.weight"], other["up.weight"])


def test_a_trained_connector_is_loaded_and_must_fit(parts: Parts, tmp_path: Path):
    made = parts.build(connector=ConnectorConfig(hidden=24))
    save_part(made, "connector", tmp_path / "connector")
    source = ConnectorConfig(source=str(tmp_path / "connector"))
    again = build(parts.config(connector=source), 9).mllm.connector
    assert again.config.hidden == 24
    assert all(
        torch.equal(t, again.state_dict()[n]) for n, t in made.mllm.connector.state_dict().items()
    )
    with pytest.raises(ModelError, match=r"tower and language need .*'merge': 4"):
        build(parts.config(connector=source.model_copy(update={"merge": 4})), 0)


def test_a_merge_that_does_not_divide_the_grid_is_refused(parts: Parts):
    with pytest.raises(
        ModelError,
        match=r"grid of 4 x 4 patches cannot be merged 3 x 3; .*\(24 or 48\).*divisor of 4",
    ):
        parts.build(connector=ConnectorConfig(merge=3))


@pytest.mark.parametrize("merge", [1, 2, 4])
def test_merging_sets_the_visual_tokens(parts: Parts, merge: int):
    made = parts.build(connector=ConnectorConfig(merge=merge))
    assert made.layout.tokens_per_tile == made.mllm.visual_tokens == 16 // merge**2
    batch = collate([samples(made, mixed_records())])
    assert made.mllm(batch).visual.shape == (4, 16 // merge**2, 32)


@pytest.mark.parametrize("language", ["qwen2", "llama"])
def test_tokens_around_images_are_added_with_mean_embeddings_and_found_again(
    parts: Parts, tmp_path: Path, language: str
):
    config = parts.config(language=language, image=ImageConfig(wrap=("<img>", "</img>")))
    made = build(config, 0)
    first, last = ids = made.tokenizer.convert_tokens_to_ids(["<img>", "</img>"])
    model = made.mllm.language
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert torch.equal(table[first], table[last])
        torch.testing.assert_close(table[first], table[:first].mean(dim=0))
    with torch.no_grad():
        model.get_input_embeddings().weight[ids] = 7.0
    save_part(made, "language", tmp_path / "language")
    again = build(config.model_copy(update={"language": str(tmp_path / "language")}), 7)
    assert again.tokenizer.convert_tokens_to_ids(["<img>", "</img>"]) == ids
    assert (again.mllm.language.get_input_embeddings().weight[ids] == 7.0).all()
    assert again.layout.wrap == ("<img>", "</img>")
    [sample] = samples(again, mixed_records()[1:2])
    assert [(sample.tokens == token).sum() for token in ids] == [1, 1]


def test_plan_and_random_weights_count_the_tokens_around_images(parts: Parts, tmp_path: Path):
    config = parts.config(image=ImageConfig(wrap=("<img>", "</img>")))
    made, meta = build(config, 0), build(config, weights="meta")
    assert meta.layout == made.layout
    assert meta.tokenizer.get_vocab() == made.tokenizer.get_vocab()
    drawn = build(config, 0, weights="random")
    assert drawn.layout == made.layout


@pytest.mark.parametrize("wrap", [("<img>",), ("<img>", ""), ("<a b>", "</a>")])
def test_a_wrap_is_two_tokens(wrap: tuple[str, ...]):
    with pytest.raises(ValueError, match="wrap"):
        ImageConfig.model_validate({"wrap": wrap})

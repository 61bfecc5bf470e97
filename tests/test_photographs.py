"""The whole road on real input: photographs, three stages, a SigLIP tower and a Llama language by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pytest
import skimage
import sklearn.datasets
import torch
from PIL import Image
from small_tokenizers import CHATML, byte_tokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from sailvit.core.run import RunFolder, read_json, read_lines
from sailvit.data.processing.images import load_image, tile_image
from sailvit.models.loading.build import ModelBundle
from sailvit.recipes.loader import load_recipe
from sailvit.training import trainer as module
from sailvit.training.trainer import Trainer

SCIKIT_IMAGE, SCIKIT_LEARN = (
    Path(skimage.__file__).parent / "data",
    Path(sklearn.datasets.__file__).parent / "images",
)
PHOTOGRAPHS = {
    SCIKIT_IMAGE / "astronaut.png": (
        "an astronaut in an orange suit smiles",
        "what does she wear?",
        "an orange suit",
    ),
    SCIKIT_IMAGE / "coffee.png": (
        "a cup of coffee on a wooden table",
        "what is in the cup?",
        "coffee",
    ),
    SCIKIT_IMAGE / "chelsea.png": ("a tabby cat looks to the side", "which animal is it?", "a cat"),
    SCIKIT_IMAGE / "rocket.jpg": (
        "a rocket stands on its launch pad",
        "what stands there?",
        "a rocket",
    ),
    SCIKIT_IMAGE / "camera.png": (
        "a man behind a camera on a tripod",
        "what is he looking into?",
        "a camera",
    ),
    SCIKIT_IMAGE / "motorcycle_left.png": (
        "a motorcycle in a garage",
        "which vehicle is it?",
        "a motorcycle",
    ),
    SCIKIT_LEARN / "china.jpg": (
        "a temple with a curved roof",
        "which building is it?",
        "a temple",
    ),
    SCIKIT_LEARN / "flower.jpg": ("a pink flower opens its leaves", "which colour is it?", "pink"),
}
RECIPE = """
name: photographs
seed: 0
precision: fp32
sequence: 160
workers: 0
proof_steps: 3
model:
  tower: tower
  language: language
  placeholder: <|photo|>
  image: {max_tiles: 6, thumbnail: true}
sources:
  captions: {format: captions, path: captions.jsonl, images: photographs}
  talk: {format: llava, path: talk.json, images: photographs}
stages:
  - name: coarse
    train: {connector: 1}
    data: [captions]
    objectives: {next_token: 1, contrastive: 0.1}
    optim: {lr: 5.0e-3}
    length: {samples: 48}
    global_batch: 1
  - name: fine
    train: {connector: 1, tower: 1}
    data: {captions: 2, talk: 1}
    objectives: {next_token: 1, contrastive: 0.1}
    optim: {lr: 5.0e-3}
    length: {samples: 48}
    global_batch: 1
  - name: world
    train: {connector: 1, tower: 1, language: 1}
    data: [captions, talk]
    optim: {lr: 4.0e-3}
    length: {epochs: 8}
    global_batch: 1
"""


def turns(*texts: str) -> list[dict[str, str]]:
    return [
        {"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)
    ]


def write_photographs(folder: Path) -> None:
    """The photographs, their captions, and conversations about one, about two, and about none of them."""
    (folder / "photographs").mkdir(parents=True)
    for path in PHOTOGRAPHS:
        (folder / "photographs" / path.name).write_bytes(path.read_bytes())
    captions = [
        {"image": path.name, "text": caption} for path, (caption, _, _) in PHOTOGRAPHS.items()
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captions))
    talk = [
        {
            "id": path.stem,
            "image": path.name,
            "conversations": turns(f"<image>\n{question}", answer),
        }
        for path, (_, question, answer) in PHOTOGRAPHS.items()
    ]
    both = turns(
        "first <image> then <image>: which is the animal?",
        "the second",
        "and the drink?",
        "the first",
    )
    talk.append({"id": "two", "images": ["coffee.png", "chelsea.png"], "conversations": both})
    talk.append({"id": "none", "conversations": turns("what is two and two?", "four")})
    (folder / "talk.json").write_text(json.dumps(talk))


def write_parts(folder: Path) -> None:
    """What transformers' own classes save, as a hub repository holds it."""
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
    )
    SiglipVisionModel(vision).save_pretrained(folder / "tower")
    SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / "tower")
    tokenizer = byte_tokenizer(CHATML)
    text = LlamaConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,  # an untrained language that listens: at 0.02 its answers hardly depend on the prompt
    )
    LlamaForCausalLM(text).save_pretrained(folder / "language")
    tokenizer.save_pretrained(folder / "language")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, ModelBundle]:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder)
    write_parts(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    run = RunFolder(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "device_peak", lambda *_: 1e12)
        return run, Trainer(load_recipe(folder / "recipe.yaml"), run).run()


def losses(run: RunFolder, objective: str, *stages: str) -> list[float]:
    return [
        line["loss"][objective]
        for line in read_lines(run.metrics)
        if line["stage"] in stages and line["loss"][objective]
    ]


def test_the_loss_falls_over_three_stages(trained: tuple[RunFolder, ModelBundle]):
    run, _ = trained
    coarse, fine, world = (
        losses(run, "next_token", stage) for stage in ("coarse", "fine", "world")
    )
    assert mean(fine[-8:]) < 0.97 * mean(coarse[:4])
    assert mean(world[-4:]) < 0.5 * mean(fine[-8:])
    pairs = losses(run, "contrastive", "coarse", "fine")
    assert mean(pairs[-4:]) < 0.7 * mean(pairs[:4])


def test_photographs_are_tiled_with_a_thumbnail(trained: tuple[RunFolder, ModelBundle]):
    run, bundle = trained
    tiles = {path.stem: len(tile_image(load_image(path), bundle.layout)) for path in PHOTOGRAPHS}
    # A square of 512 x 512 fills 2 x 2 tiles, 600 x 400 and 640 x 427 fill 3 x 2; a thumbnail each.
    assert (tiles["astronaut"], tiles["coffee"], tiles["china"], tiles["flower"]) == (5, 7, 7, 7)
    lines = list(read_lines(run.metrics))
    assert sum(line["images"] for line in lines if line["stage"] == "coarse") == 6 * sum(
        tiles.values()
    )
    assert {line["stage"]: line["samples"] for line in lines} == {
        "coarse": 48,
        "fine": 48,
        "world": 8 * 18,
    }


def test_every_stage_is_proved(trained: tuple[RunFolder, ModelBundle]):
    run, _ = trained
    proofs = list(read_lines(run.proofs))
    assert len(proofs) == 6
    assert all(proof["ok"] for proof in proofs)
    trained_parts = [
        {row["part"] for row in proof["rows"] if row["moved"]}
        for proof in proofs
        if proof["when"] == "end"
    ]
    assert trained_parts == [
        {"connector"},
        {"connector", "tower"},
        {"connector", "tower", "language"},
    ]


def test_the_refined_tower_is_a_plain_one_with_equal_features(
    trained: tuple[RunFolder, ModelBundle],
):
    run, bundle = trained
    folder = run.path / read_json(run.manifest)["stages"][-1]["parts"]["tower"]
    again = AutoModel.from_pretrained(folder).eval()
    assert type(again) is SiglipVisionModel
    assert again.config.to_diff_dict().keys() <= SiglipVisionModel.from_pretrained(
        run.path.parent / "tower"
    ).config.to_diff_dict().keys() | {"transformers_version", "dtype"}
    processor = SiglipImageProcessor.from_pretrained(folder)
    tower = bundle.mllm.tower.eval()
    for path in PHOTOGRAPHS:
        tiles = tile_image(load_image(path), bundle.layout)
        with torch.no_grad():
            ours = tower(tiles)
            pixels = (tiles.float() - tower.mean) / tower.std
            assert torch.equal(again(pixel_values=pixels).last_hidden_state, ours)
            # The way a user goes, through the processor beside it; its arithmetic rounds differently.
            shown = processor(list(tiles), do_resize=False, return_tensors="pt")["pixel_values"]
            torch.testing.assert_close(
                again(pixel_values=shown).last_hidden_state, ours, rtol=1e-3, atol=1e-3
            )
    begun = SiglipVisionModel.from_pretrained(run.path.parent / "tower")
    moved = [n for n, p in again.named_parameters() if not torch.equal(p, begun.get_parameter(n))]
    still = {n for n, _ in again.named_parameters()} - set(moved)
    assert still
    assert all(".head." in f".{name}" for name in still)


def test_the_language_keeps_the_new_placeholder(trained: tuple[RunFolder, ModelBundle]):
    run, bundle = trained
    tokenizer = AutoTokenizer.from_pretrained(run.stage(2, "world") / "language")
    assert (
        tokenizer.convert_tokens_to_ids("<|photo|>")
        == bundle.layout.placeholder_id
        == len(tokenizer) - 1
    )


def test_the_photographs_are_photographs():
    for path in PHOTOGRAPHS:
        with Image.open(path) as image:
            assert min(image.size) >= 300

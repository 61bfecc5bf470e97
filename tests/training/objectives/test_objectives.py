"""Objectives against references written the plain way, in value and in gradient."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sailvit.core.batch import IGNORED, Batch
from sailvit.core.errors import RecipeError
from sailvit.core.records import Record
from sailvit.data.processing.collate import collate
from sailvit.models.loading.build import ModelBundle
from sailvit.models.structure.mllm import MLLM, Activations
from sailvit.training.objectives.base import Contrastive, NextToken, make_objectives
from tiny_parts import Parts, captions, mixed_records, picture, record, samples

TEXTS = ["a red circle", "blue square", "a red circle", "large", "circle red a"]
"""The first and third are the same caption."""


@pytest.fixture
def bundle(parts: Parts) -> ModelBundle:
    return parts.build()


def contrastive() -> Contrastive:
    """With values at which every term counts; at -10 the positives alone would."""
    made = Contrastive()
    with torch.no_grad():
        made.log_scale.fill_(1.0)
        made.bias.fill_(-0.7)
    return made


def naive(objective: Contrastive, model: MLLM, batch: Batch) -> torch.Tensor:
    """The loss over all pairs as two plain loops."""
    visual = model.visual(batch.tiles)
    images, texts, bags, shown = [], [], [], []
    for index in range(batch.captioned_images):
        tokens = batch.tokens[batch.caption_of == index]
        embedded = model.language.get_input_embeddings()(tokens).mean(dim=0)
        seen = visual[batch.image_of_tile == index].mean(dim=(0, 1))
        images.append(seen / seen.norm())
        texts.append(embedded / embedded.norm())
        bags.append(sorted(tokens.tolist()))
        shown.append(batch.tiles[batch.image_of_tile == index])
    total = torch.zeros(())
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            score = objective.log_scale.exp() * image @ text + objective.bias
            if i == j:
                total = total + (1 + (-score).exp()).log()
            elif bags[i] != bags[j] and not shown[i].equal(shown[j]):
                total = total + (1 + score.exp()).log()
    return total


def gradients(*modules: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {
        f"{index}.{name}": p.grad.clone()
        for index, module in enumerate(modules)
        for name, p in module.named_parameters()
        if p.grad is not None
    }
    for module in modules:
        module.zero_grad(set_to_none=True)
    return found


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_next_token_is_the_sum_of_cross_entropies(bundle: ModelBundle):
    batch = collate([samples(bundle, mixed_records())])
    everywhere = Batch(**{**vars(batch), "labels": torch.zeros_like(batch.labels)})
    every = bundle.mllm(everywhere).logits.log_softmax(dim=-1)
    expected = -sum(
        every[place, label]
        for place, label in enumerate(batch.labels.flatten().tolist())
        if label != IGNORED
    )
    objective = NextToken()
    found = objective(bundle.mllm, bundle.mllm(batch), batch)
    torch.testing.assert_close(found, expected)
    assert objective.units(batch) == int((batch.labels != IGNORED).sum()) > 20


def test_contrastive_equals_a_double_loop(bundle: ModelBundle):
    batch = collate([samples(bundle, captions(TEXTS))])
    model, objective = bundle.mllm, contrastive()
    expected = naive(objective, model, batch)
    expected.backward()
    wanted = gradients(model, objective)
    objective.prepare(model, [batch])
    found = objective(model, model(batch, logits=False), batch)
    found.backward()
    torch.testing.assert_close(found, expected)
    assert_close(gradients(model, objective), wanted)
    assert {
        "1.log_scale",
        "1.bias",
        "0.connector.up.weight",
        "0.language.model.embed_tokens.weight",
    } <= wanted.keys()


@pytest.mark.parametrize("sizes", [(1, 4), (2, 2, 1), (1, 1, 1, 1, 1), (0, 5)])
def test_contrastive_over_micro_batches_equals_the_whole(
    bundle: ModelBundle, sizes: tuple[int, ...]
):
    """Also when a micro-batch holds no caption: negatives span all of them."""
    model, objective = bundle.mllm, contrastive()
    made = samples(bundle, captions(TEXTS))
    whole = collate([made])
    expected = naive(objective, model, whole)
    expected.backward()
    wanted = gradients(model, objective)
    left, batches = list(made), []
    for size in sizes:
        own, left = left[:size], left[size:]
        batches.append(collate([own or samples(bundle, [record("text")])]))
    objective.prepare(model, batches)
    total = 0.0
    for batch in batches:
        value = objective(model, model(batch, logits=False), batch)
        total += float(value.detach())
        if value.requires_grad:
            value.backward()
    assert total == pytest.approx(float(expected.detach()), rel=1e-5)
    found = gradients(model, objective)
    assert_close({name: tensor for name, tensor in found.items() if name in wanted}, wanted)
    assert sum(objective.units(batch) for batch in batches) == len(TEXTS)


def test_identical_captions_are_no_negatives(bundle: ModelBundle):
    """Of two equal captions the loss is that of two pairs alone."""
    model, objective = bundle.mllm, contrastive()
    made = samples(bundle, captions(["red", "red"]))
    both = collate([made])
    alone = [collate([[sample]]) for sample in made]
    found = objective(model, model(both, logits=False), both)
    expected = sum(objective(model, model(batch, logits=False), batch) for batch in alone)
    torch.testing.assert_close(found, expected)


def described(indices: list[int]) -> list[Record]:
    """A caption of its own for each of some pictures, which may be the same."""
    return [
        record(str(row), picture(10 + index), answer=TEXTS[row], kind="caption")
        for row, index in enumerate(indices)
    ]


@pytest.mark.parametrize("sizes", [(5,), (1, 4), (2, 2, 1), (1, 1, 1, 1, 1)])
def test_captions_of_the_same_image_are_no_negatives(bundle: ModelBundle, sizes: tuple[int, ...]):
    """Within a micro-batch and across them, in value and in gradient."""
    model, objective = bundle.mllm, contrastive()
    made = samples(bundle, described([0, 0, 1, 2, 1]))
    different = samples(bundle, described([0, 3, 1, 2, 4]))
    expected = naive(objective, model, collate([made]))
    assert abs(expected - naive(objective, model, collate([different]))) > 0.1
    expected.backward()
    wanted = gradients(model, objective)
    batches = [collate([made[sum(sizes[:at]) : sum(sizes[: at + 1])]]) for at in range(len(sizes))]
    objective.prepare(model, batches)
    values = [objective(model, model(batch, logits=False), batch) for batch in batches]
    torch.testing.assert_close(sum(values), expected)
    sum(values).backward()
    assert_close(gradients(model, objective), wanted)


def as_process(index: int, folder: str, parts: Parts) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/join", rank=index, world_size=2
    )
    bundle, objective = parts.build(), contrastive()
    made = samples(bundle, described([0, 0, 1, 2, 1]))
    batch = collate([made[:2] if index == 0 else made[2:]])
    objective.prepare(bundle.mllm, [batch])
    found = objective(bundle.mllm, bundle.mllm(batch, logits=False), batch)
    torch.save(found.detach(), f"{folder}/{index}.pt")
    torch.distributed.destroy_process_group()


def test_captions_of_the_same_image_are_no_negatives_across_processes(
    parts: Parts, bundle: ModelBundle, tmp_path: Path
):
    expected = naive(
        contrastive(), bundle.mllm, collate([samples(bundle, described([0, 0, 1, 2, 1]))])
    )
    torch.multiprocessing.start_processes(
        as_process, (str(tmp_path), parts), nprocs=2, start_method="fork"
    )
    found = sum(torch.load(tmp_path / f"{index}.pt") for index in range(2))
    torch.testing.assert_close(found, expected.detach())


def test_two_captions_of_one_image_lose_what_two_pairs_alone_do(bundle: ModelBundle):
    model, objective = bundle.mllm, contrastive()
    made = samples(bundle, described([0, 0]))
    both, alone = collate([made]), [collate([[sample]]) for sample in made]
    found = objective(model, model(both, logits=False), both)
    expected = sum(objective(model, model(batch, logits=False), batch) for batch in alone)
    torch.testing.assert_close(found, expected)


def test_only_captions_form_pairs_and_tiles_are_averaged(bundle: ModelBundle):
    records = [
        record("two", picture(1), picture(2)),
        record("tall", picture(3, 32, 96), answer="tall", kind="caption"),
        record("chat", picture(4)),
        record("flat", picture(5, 64, 32), answer="flat", kind="caption"),
    ]
    layout = bundle.layout.__class__(**{**vars(bundle.layout), "max_tiles": 4})
    tiled = ModelBundle(bundle.mllm, bundle.tokenizer, layout, {})
    batch = collate([samples(tiled, records)])
    assert batch.image_of_tile.tolist() == [0, 1, 2, 2, 2, 2, 3, 4, 4, 4]
    objective = Contrastive()
    visual = bundle.mllm.visual(batch.tiles)
    images, texts = objective.pairs(bundle.mllm, visual, batch)
    assert objective.units(batch) == len(images) == len(texts) == 2
    for row, tiles in ((0, slice(2, 6)), (1, slice(7, 10))):
        mean = visual[tiles].mean(dim=(0, 1))
        torch.testing.assert_close(images[row], mean / mean.norm())


def test_the_caption_is_the_answer_alone(bundle: ModelBundle):
    """The question is the same for every image; with it in, all captions would look alike."""
    batch = collate([samples(bundle, captions(["red"]))])
    tokens = batch.tokens[batch.caption_of == 0]
    assert bundle.tokenizer.decode(tokens) == "red<|im_end|>"


def test_it_begins_as_siglip_does():
    objective = Contrastive()
    assert objective.log_scale.exp().item() == pytest.approx(10.0)
    assert objective.bias.item() == -10.0


def test_the_loss_falls_when_pairs_agree(bundle: ModelBundle):
    """Sanity of the sign: images that point to their own captions lose less than shuffled ones."""
    objective = Contrastive()
    batch = collate([samples(bundle, captions(["red", "blue square", "large"]))])
    _, texts = objective.pairs(bundle.mllm, bundle.mllm.visual(batch.tiles), batch)

    def loss(order: list[int]) -> float:
        visual = texts[order][:, None].expand(-1, 4, -1).detach()
        return objective(bundle.mllm, Activations(visual, None), batch).item()

    assert loss([0, 1, 2]) < loss([1, 2, 0]) - math.log(2)


def test_an_unknown_objective_is_named():
    with pytest.raises(
        RecipeError, match="unknown objective 'nextoken'; registered are: next_token, contrastive"
    ):
        make_objectives(["nextoken"])


class Renamed(NextToken):
    """An objective as it was written for the older name of `spans_step`."""

    looks_ahead = True


def test_the_older_name_of_an_attribute_is_refused_with_the_new_one():
    with pytest.raises(RecipeError, match=r"Renamed sets looks_ahead, .* called spans_step"):
        make_objectives([f"{__name__}:Renamed"])

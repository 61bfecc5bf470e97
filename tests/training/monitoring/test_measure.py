"""Looks: what they measure, and that they leave the model as they found it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sailvit.core.batch import IGNORED
from sailvit.data.processing.collate import collate
from sailvit.evaluation.world import embedding_rows
from sailvit.models.measures.affinity import affinity
from sailvit.training.monitoring.measure import distances, model_features, perplexity, undisturbed
from sailvit.training.monitoring.monitored import MonitoringData
from sailvit.training.stages.stage_run import StageRun
from tiny_parts import Parts, mixed_records, picture, record, samples
from tiny_runs import stage, stage_run


@pytest.fixture
def made(parts: Parts) -> StageRun:
    return stage_run(parts.build(), stage(train={"connector": 1.0}), Path())


@pytest.fixture
def monitored(made: StageRun) -> MonitoringData:
    shown = samples(made.bundle, [record(str(n), picture(n)) for n in range(5)])
    told = samples(made.bundle, [record(f"{n}", answer="red " * (n + 1)) for n in range(4)])
    return MonitoringData(torch.cat([sample.tiles for sample in shown]), tuple(told), "records")


def test_perplexity_is_that_of_all_answers_together(made: StageRun, monitored: MonitoringData):
    with undisturbed(made):
        found = perplexity(made, monitored)
        total = count = 0.0
        for text in monitored.texts:
            batch = collate([[text]])
            labels = batch.labels[batch.labels != IGNORED]
            total += float(
                torch.nn.functional.cross_entropy(made.model(batch).logits, labels, reduction="sum")
            )
            count += len(labels)
    assert found == pytest.approx(math.exp(total / count), rel=1e-5)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(
    made: StageRun, monitored: MonitoringData
):
    head = made.model.language.get_output_embeddings()
    head.weight.data.zero_()
    with undisturbed(made):
        assert perplexity(made, monitored) == pytest.approx(len(head.weight), rel=1e-4)


def test_sight_holds_the_towers_features_and_what_the_language_is_given(
    made: StageRun, monitored: MonitoringData
):
    with undisturbed(made):
        found = model_features(made, monitored)
        features = made.model.tower(monitored.tiles)
        visual = made.model.connector(features)
    assert found is not None
    torch.testing.assert_close(found.tower, features.flatten(0, 1))
    torch.testing.assert_close(found.visual, visual.mean(dim=1))
    table = made.model.language.get_input_embeddings().weight
    assert found.words.shape[1] == table.shape[1]
    expected = affinity(found.visual.numpy(), found.words.numpy())
    assert distances(found)["wasserstein"] == expected.wasserstein


def test_words_are_what_the_language_reads_also_where_it_scales_them(
    parts: Parts, monitored: MonitoringData
):
    run = stage_run(parts.build("siglip", "gemma3"), stage(train={"connector": 1.0}), Path())
    with undisturbed(run):
        found = model_features(run, monitored)
    language = run.model.language
    ids = [
        n for n in range(len(run.bundle.tokenizer)) if n not in run.bundle.tokenizer.all_special_ids
    ]
    read = language.get_input_embeddings()(torch.tensor(ids))
    assert found is not None
    assert torch.equal(found.words, read)
    assert torch.equal(torch.from_numpy(embedding_rows(run.bundle)), read)
    assert not torch.allclose(read, language.get_input_embeddings().weight[ids])


def test_tiles_go_through_in_portions_that_fit_a_pack(made: StageRun, monitored: MonitoringData):
    sizes: list[int] = []
    made.model.tower.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    per_tile = made.bundle.layout.tokens_per_tile
    made.recipe = made.recipe.model_copy(update={"sequence": 2 * per_tile + 1})
    with undisturbed(made):
        model_features(made, monitored)
    assert sizes == [2, 2, 1]


def test_nothing_is_left_behind(made: StageRun, monitored: MonitoringData):
    made.model.train()
    made.model.tower.eval()
    modes = [module.training for module in made.model.modules()]
    torch.manual_seed(5)
    state, callbacks = torch.get_rng_state(), len(made.model.tower._forward_hooks)
    with undisturbed(made):
        assert not any(module.training for module in made.model.modules())
        assert not torch.is_grad_enabled()
        model_features(made, monitored)
        perplexity(made, monitored)
        torch.rand(3)
    assert [module.training for module in made.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert len(made.model.tower._forward_hooks) == callbacks
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_modes_come_back_after_an_error(made: StageRun):
    made.model.train()
    with pytest.raises(ZeroDivisionError), undisturbed(made):
        raise ZeroDivisionError
    assert made.model.training


def test_it_runs_in_the_precision_of_training(made: StageRun):
    made.recipe = made.recipe.model_copy(update={"precision": "bf16"})
    batch = collate([samples(made.bundle, mixed_records())])
    with undisturbed(made):
        assert made.model(batch).logits.dtype == torch.bfloat16

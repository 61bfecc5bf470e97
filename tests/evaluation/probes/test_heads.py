"""Heads and neighbours: they learn, choose without the test set, and agree with other code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from sailvit.core.errors import DataError
from sailvit.evaluation.probes.heads import training
from sailvit.evaluation.probes.heads.heads import HEADS, AttentivePool, Standardised
from sailvit.evaluation.probes.heads.neighbours import TEMPERATURE, neighbour_votes
from sailvit.evaluation.probes.heads.training import (
    Fitting,
    batch_size,
    fit_head,
    head_scores,
    statistics_of,
)
from sailvit.evaluation.probes.recognition import right_answers

CPU = torch.device("cpu")


def clouds(count: int, classes: int = 4, width: int = 16, seed: int = 0):
    """Features of classes that a line can part, at a scale that only standardising bears."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(0, 1, (classes, width))
    labels = np.arange(count) % classes
    scales = 10.0 ** np.linspace(-3, 3, width)
    found = (centres[labels] + rng.normal(0, 0.3, (count, width))) * scales + 50
    return found.astype(np.float32), labels.astype(np.int64)


def accuracy(head, features, labels) -> float:
    scores = torch.cat(list(head_scores(head, features, np.arange(len(labels)), CPU)))
    return float((scores.argmax(-1).numpy() == labels).mean())


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_learn_what_can_be_parted(kind):
    features, labels = clouds(400)
    fitted = fit_head(kind, features, np.arange(400), labels, 4, how=Fitting(epochs=5))
    assert fitted.chosen > 0.95
    assert accuracy(fitted.head, *clouds(200, seed=1)) > 0.95


def test_attention_finds_the_patch_that_says_the_class():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    tokens = rng.normal(0, 1, (300, 9, 12)).astype(np.float32)
    places = rng.integers(9, size=300)
    # One patch of nine is marked and holds the class: its mean over patches hardly shows it.
    tokens[np.arange(300), places, 0] += 8
    tokens[np.arange(300), places, 1 + labels] += 4
    how = Fitting(epochs=20, rates=(1e-2,))
    fitted = fit_head("attentive", tokens, np.arange(200), labels[:200], 3, how=how)
    assert accuracy(fitted.head, tokens[200:], labels[200:]) > 0.9


def test_the_same_seed_gives_the_same_head():
    features, labels = clouds(80)
    how = Fitting(epochs=2)
    one, two = (fit_head("mlp", features, np.arange(80), labels, 4, how=how) for _ in range(2))
    for mine, yours in zip(one.head.parameters(), two.head.parameters(), strict=True):
        assert torch.equal(mine, yours)


def test_a_rate_is_chosen_by_held_out_training_images_alone(monkeypatch):
    features, labels = clouds(100)
    kept = np.arange(100)
    asked = []
    scores = training.head_scores

    def watched(head, given, rows, device):
        asked.append(rows)
        return scores(head, given, rows, device)

    monkeypatch.setattr(training, "head_scores", watched)
    fitted = fit_head(
        "linear", features, kept, labels, 4, how=Fitting(rates=(1e-9, 1e-2), epochs=4)
    )
    assert fitted.rate == 1e-2
    assert len(asked) == 2
    held = set(asked[0])
    assert held < set(kept)
    assert len(held) == 8  # a tenth of each class of 25, rounded


def test_rows_beside_the_kept_ones_are_never_read():
    features, labels = clouds(60)
    features[50:] = np.nan
    fitted = fit_head("linear", features, np.arange(50), labels[:50], 4, how=Fitting(epochs=2))
    assert all(bool(torch.isfinite(each).all()) for each in fitted.head.parameters())


def test_statistics_are_those_of_numpy():
    features, _ = clouds(5000)
    mean, deviation = statistics_of(features, np.arange(5000), CPU)
    np.testing.assert_allclose(mean, features.astype(float).mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, features.astype(float).std(0), rtol=1e-3)
    tokens = features.reshape(1000, 5, 16)
    again = statistics_of(tokens, np.arange(1000), CPU)
    torch.testing.assert_close(again[0], mean)


def test_a_channel_that_never_varies_stays_finite():
    norm = Standardised(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]))
    assert norm(torch.tensor([[1.0, 4.0]])).tolist() == [[0.0, 1.0]]


def test_attention_is_that_of_keys_and_values():
    torch.manual_seed(0)
    pool, patches = AttentivePool(128), torch.randn(3, 10, 128)
    torch.nn.init.normal_(pool.query)
    keys, values = (
        made(patches).view(3, 10, 2, 64).transpose(1, 2) for made in (pool.key, pool.value)
    )
    query = pool.query[None, :, None].expand(3, -1, -1, -1)
    expected = torch.nn.functional.scaled_dot_product_attention(query, keys, values)
    torch.testing.assert_close(pool(patches), expected.reshape(3, 128), rtol=1e-4, atol=1e-5)


def test_attention_divides_any_width():
    for width in (12, 65, 128):
        assert AttentivePool(width)(torch.zeros(2, 3, width)).shape == (2, width)
    assert HEADS["mlp"](8, 3)(torch.zeros(5, 8)).shape == (5, 3)


def test_small_sets_get_small_batches():
    assert [batch_size(count) for count in (10, 4000, 10**6)] == [16, 100, 1024]


def test_neighbours_vote_as_in_plain_code():
    bank, labels = clouds(90)
    asked, _ = clouds(20, seed=3)
    bank, asked = bank - 50, asked - 50
    votes = torch.cat(
        list(
            neighbour_votes(
                (bank, np.arange(90), labels),
                (asked, np.arange(20)),
                4,
                neighbours=7,
                device=CPU,
            )
        )
    )
    near = NearestNeighbors(n_neighbors=7, metric="cosine").fit(bank)
    distances, places = near.kneighbors(asked)
    weights = np.exp((1 - distances) / TEMPERATURE)
    expected = np.zeros((20, 4))
    for row in range(20):
        np.add.at(expected[row], labels[places[row]], weights[row])
    expected /= weights[:, :1]
    np.testing.assert_allclose(votes, expected, rtol=1e-3, atol=1e-5)


def test_a_bank_in_pieces_votes_alike(monkeypatch):
    bank, labels = clouds(90)
    given = ((bank, np.arange(90), labels), (bank, np.arange(30)), 4)
    how = {"neighbours": 5, "device": CPU}
    whole = torch.cat(list(neighbour_votes(*given, **how)))
    monkeypatch.setattr("sailvit.evaluation.probes.heads.neighbours._BANK", 13)
    monkeypatch.setattr("sailvit.evaluation.probes.heads.neighbours._QUERIES", 7)
    torch.testing.assert_close(torch.cat(list(neighbour_votes(*given, **how))), whole)


def test_too_few_images_are_refused():
    bank, labels = clouds(8)
    with pytest.raises(DataError, match=r"20 nearest of 8 training images.* --neighbours"):
        next(
            neighbour_votes(
                (bank, np.arange(8), labels),
                (bank, np.arange(8)),
                4,
                neighbours=20,
                device=CPU,
            )
        )
    with pytest.raises(DataError, match="every class has one training image"):
        fit_head("linear", bank[:4], np.arange(4), labels[:4], 4, how=Fitting())


def test_classes_that_a_test_set_does_not_hold_do_not_count():
    # Class 3 would win both times; the set holds 0, 1 and 2 alone.
    scores = torch.tensor([[1.0, 2, 0, 9], [3, 2, 0, 9], [0, 0, 1, 9], [1, 0, 0, 9]])
    found = right_answers(iter([scores[:3], scores[3:]]), np.array([1, 1, 2, 0]), 4)
    assert found["top-1"].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert "top-5" not in found
    many = right_answers(iter([torch.arange(8.0)[None]]), np.array([3]), 8)
    assert many["top-1"].tolist() == [1.0]
    wide = torch.arange(8.0).expand(8, -1)
    assert right_answers(iter([wide]), np.arange(8), 8)["top-5"].sum() == 5

"""Each row of a batch chooses its tokens by itself: numbers, seeds and shares."""

from __future__ import annotations

import pytest
import torch

from sailvit.inference.serving.rows import Choice, ChoosingRows, EndingRows, Row

CPU = torch.device("cpu")
SCORES = torch.tensor([2.0, 1.0, 0.0, -1.0])
NONE = torch.zeros(1, 0, dtype=torch.long)


def drawn(choice: Choice, times: int = 4000) -> torch.Tensor:
    """Shares of the tokens that one row takes, step after step."""
    rows = ChoosingRows([choice], CPU)
    taken = [int(rows(NONE, SCORES[None].clone()).argmax()) for _ in range(times)]
    return torch.bincount(torch.tensor(taken), minlength=4) / times


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_by_their_softmax(temperature: float):
    found = drawn(Choice(9, temperature=temperature, seed=1))
    assert torch.allclose(found, (SCORES / temperature).softmax(-1), atol=0.03)


def test_top_k_and_top_p_leave_the_likeliest():
    two = SCORES[:2].softmax(-1)
    for choice in (
        Choice(9, temperature=1.0, top_k=2, seed=2),
        # The first two make 88 % together, and the first alone 64 %.
        Choice(9, temperature=1.0, top_p=0.8, seed=2),
    ):
        found = drawn(choice)
        assert torch.allclose(found[:2], two, atol=0.03)
        assert found[2:].sum() == 0
    assert drawn(Choice(9, temperature=5.0, top_p=0.1, seed=2), 50)[0] == 1


def test_penalties_are_taken_off_by_count():
    made = torch.tensor([[0, 0, 2]])
    found = ChoosingRows([Choice(9, presence=0.5, frequency=0.25)], CPU)(made, SCORES[None].clone())
    assert found[0].tolist() == [2.0 - 0.5 - 0.5, 1.0, 0.0 - 0.5 - 0.25, -1.0]


def test_a_seeded_row_takes_the_same_tokens_beside_any_others():
    seeded, free, greedy = Choice(9, temperature=2.0, seed=7), Choice(9, temperature=2.0), Choice(9)

    def taken(choices: list[Choice], row: int) -> list[int]:
        rows = ChoosingRows(choices, CPU)
        made = torch.zeros(len(choices), 0, dtype=torch.long)
        steps = [rows(made, SCORES.repeat(len(choices), 1)) for _ in range(40)]
        return [int(scores[row].argmax()) for scores in steps]

    alone = taken([seeded], 0)
    assert taken([free, seeded, greedy], 1) == taken([greedy, free, free, seeded], 3) == alone
    assert taken([free, greedy], 1) == [0] * 40
    # Rows without a seed are drawn anew, also for the same question in the same batch.
    assert taken([free, free], 0) != taken([free, free], 1)


def test_rows_end_at_their_own_lengths_and_when_nobody_waits():
    class Letters:
        """Decodes a token as a letter."""

        def decode(self, tokens, **_):
            return "".join(chr(97 + token) for token in tokens)

    told: list[tuple[int, str, str | None, int]] = []
    rows = [
        Row(Choice(longest), Letters(), {9}, lambda *given, n=n: told.append((n, *given)))
        for n, longest in enumerate((2, 4, 4))
    ]
    ending = EndingRows(rows)
    rows[2].cancelled = True
    for step, tokens in enumerate([(0, 1, 2), (1, 9, 0), (5, 5, 0)]):
        made = torch.zeros(3, step + 1, dtype=torch.long)
        assert ending(made, SCORES).tolist()[2] is True
        for row, token in zip(rows, tokens, strict=True):
            row.put(token)
    assert ending(torch.zeros(3, 3), SCORES).tolist() == [True, True, True]
    texts = ["".join(piece for n, piece, *_ in told if n == row) for row in range(2)]
    assert texts == ["ab", "b"]
    reasons = [(n, reason, made) for n, _, reason, made in told if reason]
    assert reasons == [(0, "length", 2), (1, "stop", 1)]

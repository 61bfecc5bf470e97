"""The contest's rules: stages, contenders, and whether all have the same model and the same answers before them."""

from __future__ import annotations

import math
from typing import Any

from peers.watching import Outcome, Task

STAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "1 connector": (("connector",), "pairs"),
    "2 tower and connector": (("tower", "connector"), "pairs"),
    "3 all": (("tower", "connector", "language"), "mixture"),
}
"""What trains in each stage, all else being frozen, and on which set."""
CONTENDERS = ("ours", "trl", "trainer")


def compete(name: str, task: Task) -> Outcome:
    """Run one contender; libraries of the others are not imported, as they would count in its memory."""
    if name == "ours":
        from peers import ours

        return ours.run(task)
    from peers import hugging

    return (hugging.run_trl if name == "trl" else hugging.run_trainer)(task)


def mean_tokens(task: Task) -> float:
    """Tokens of a sample on average, visual ones included."""
    from peers import ours

    return ours.mean_tokens(task)


def same_start(task: Task) -> dict[str, Any]:
    """Loss of the first conversation in fp32, ours and theirs, and that it has the same answer tokens."""
    from peers import hugging, ours

    (our_loss, our_answers), (their_loss, their_answers) = (
        ours.first_loss(task),
        hugging.first_loss(task),
    )
    if our_answers != their_answers or not math.isclose(our_loss, their_loss, rel_tol=1e-3):
        raise SystemExit(
            f"not the same model or data: loss {our_loss} over {our_answers} tokens against {their_loss} over"
            f" {their_answers}"
        )
    return {"ours": our_loss, "theirs": their_loss, "answer_tokens": our_answers}


def row(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """The comparison of one stage."""
    values: dict[str, Any] = {name: outcome.values() for name, outcome in outcomes.items()}
    for peer in sorted(outcomes.keys() - {"ours"}) if "ours" in outcomes else ():
        values[f"ratio_{peer}"] = round(outcomes["ours"].rate / outcomes[peer].rate, 2)
        values[f"memory_ratio_{peer}"] = round(
            outcomes["ours"].peak_mib / outcomes[peer].peak_mib, 2
        )
    return values

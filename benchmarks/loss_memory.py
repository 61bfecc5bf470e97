"""How much memory and time the loss over a large vocabulary takes, chunk by chunk and with all scores at once.

    python benchmarks/loss_memory.py

Each way runs in a process of its own, forward and backward, so that peaks do not mix.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from publish import publish
from torch.nn.functional import cross_entropy, linear

from sailvit.models.languages.head import Scores


def measure(way: str, answers: int, vocabulary: int, width: int) -> dict[str, Any]:
    """Peak memory above what the tensors themselves take, in MiB, and seconds."""
    hidden = torch.randn(answers, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    labels = torch.randint(0, vocabulary, (answers,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        if way == "plain":
            loss = cross_entropy(linear(hidden, weight).float(), labels, reduction="sum")
        else:
            loss = Scores(hidden, weight).loss(labels)
    loss.backward()
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "way": way,
        "answers": answers,
        "mib": round((after - before) / 1024),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    """Measure both ways at growing numbers of answer tokens."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--answers", type=int, nargs="+", default=[512, 1024, 2048])
    given = parser.parse_args()
    rows = []
    for answers in given.answers:
        for way in ("plain", "chunked"):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                rows.append(
                    alone.submit(measure, way, answers, given.vocabulary, given.width).result()
                )
    command = " ".join(["python benchmarks/loss_memory.py", *sys.argv[1:]])
    publish(
        "loss_memory", command, {"vocabulary": given.vocabulary, "width": given.width, "rows": rows}
    )


if __name__ == "__main__":
    main()

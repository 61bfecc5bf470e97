"""The server under load: 32 clients for a minute, against the same questions one at a time.

python benchmarks/serve.py RUN [--seconds 60] [--clients 32]     (RUN: what `sailvit train demo` wrote)
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openai import OpenAI
from publish import publish

from sailvit.api.models import load_run
from sailvit.data.processing.images import data_uri, load_image
from sailvit.evaluation.world import held_out
from sailvit.models.loading.quiet import quiet_libraries
from sailvit.synthetic.world.tasks import EVAL_TASKS

LONGEST = 32


def questions(run: Path, per_task: int) -> list[tuple[list[dict[str, Any]], str]]:
    """Messages of held-out questions, and the answers that the model gives outside of the server."""
    records = [record for _, record in held_out(EVAL_TASKS, per_task, 0)]
    messages = [
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image_url",
                        "image_url": {"url": data_uri(load_image(record.images[0]))},
                    },
                    {"type": "text", "text": record.turns[0].text.removeprefix("<image>\n")},
                ],
            }
        ]
        for record in records
    ]
    model = load_run(run, device="cpu")
    answers = model.chat(messages, max_new_tokens=LONGEST, batch=64)
    return list(zip(messages, answers, strict=True))


class Load:
    """Clients that ask until a time, every second one by a stream."""

    def __init__(self, port: int, asked: list[tuple[list[dict[str, Any]], str]]) -> None:
        self._client = OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=120
        )
        self._asked = asked
        self.seconds: list[float] = []
        self.wrong: list[tuple[str, str]] = []
        self.failed: list[str] = []

    def run(self, clients: int, seconds: float) -> float:
        """Answers per second."""
        self.seconds = []
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda n: self._ask(n, began + seconds), range(clients)))
        return len(self.seconds) / (time.perf_counter() - began)

    def _ask(self, client: int, until: float) -> None:
        number = client
        while time.perf_counter() < until:
            messages, expected = self._asked[number % len(self._asked)]
            began = time.perf_counter()
            given = {"model": "demo", "messages": messages, "max_tokens": LONGEST}
            made = self._client.chat.completions.create(**given, stream=bool(client % 2))
            if client % 2:
                found = "".join(c.choices[0].delta.content or "" for c in made)
            else:
                found = made.choices[0].message.content
            self.seconds.append(time.perf_counter() - began)
            if found != expected:
                self.wrong.append((found, expected))
            number += 37


def watched(process: subprocess.Popen[str], seen: list[float], over: threading.Event) -> None:
    """Note the server's memory in MiB, once a second."""
    while not over.wait(1.0):
        status = Path(f"/proc/{process.pid}/status").read_text()
        seen.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)


def main() -> None:
    """Serve the model, load it, and compare."""
    reader = argparse.ArgumentParser()
    reader.add_argument("run", type=Path)
    reader.add_argument("--seconds", type=float, default=60)
    reader.add_argument("--clients", type=int, default=32)
    given = reader.parse_args()
    os.environ["no_proxy"] = "*"
    quiet_libraries()
    asked = questions(given.run, 20)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "sailvit", "serve", str(given.run), "--name", "demo"]
    words += ["--port", str(port), "--batch", "32", "--device", "cpu"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        time.sleep(5)
        load = Load(port, asked)
        load.run(1, 3)
        alone = load.run(1, given.seconds / 4)
        memory: list[float] = []
        over = threading.Event()
        thread = threading.Thread(target=watched, args=(server, memory, over))
        thread.start()
        together = load.run(given.clients, given.seconds)
        over.set()
        thread.join()
        server.send_signal(signal.SIGTERM)
        ended = server.wait(60)
    times = sorted(load.seconds)
    half = len(memory) // 2
    values = {
        "clients": given.clients,
        "seconds": given.seconds,
        "answers": len(times),
        "wrong": len(load.wrong),
        "alone_per_second": round(alone, 1),
        "together_per_second": round(together, 1),
        "ratio": round(together / alone, 2),
        "median_seconds": round(times[len(times) // 2], 2),
        "p95_seconds": round(times[int(len(times) * 0.95)], 2),
        "memory_mib": {
            "first_half": round(max(memory[:half])),
            "second_half": round(max(memory[half:])),
        },
        "exit": ended,
    }
    publish("serve", f"python benchmarks/serve.py RUN --seconds {given.seconds:.0f}", values)


if __name__ == "__main__":
    main()

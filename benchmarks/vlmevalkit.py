"""VLMEvalKit's own run against our server, beside `sailvit evaluate`: docs/evaluation.md.

    PYTHONPATH=src python benchmarks/vlmevalkit.py RUN KIT [--questions 32]

RUN is what `sailvit demo` wrote, KIT a Python interpreter that has `ms-vlmeval`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openpyxl
from publish import publish

SETS = {
    "demo_circular": ("demo_circular", "CustomMCQDataset", "acc.csv", "Overall", 100),
    "demo_two_images": ("demo_two_images", "CustomMCQDataset", "acc.csv", "Overall", 100),
    "demo_yes_no": ("Hallusion_demo", "ImageYORNDataset", "score.csv", "aAcc fAcc qAcc", 1),
    "demo_ocr": ("OCRBench_demo", "OCRBench", "score.json", "Final Score Norm", 1),
    "demo_count": ("OCRVQA_demo", "ImageVQADataset", "acc.csv", "Overall", 1),
    "demo_charts": ("ChartQA_demo", "ImageVQADataset", "acc.csv", "Overall", 1),
    "demo_pages": ("DocVQA_demo", "ImageVQADataset", "acc.csv", "Overall", 1),
}
"""Our sets, each with the name and class that the kit scores it by, the ending of its file of
scores, the columns whose mean is the score, and their factor."""
LONGEST = 64
FAILED = "Failed to obtain answer via API."
"""What the kit writes for an answer that is empty."""
WAYS: dict[str, tuple[bool, dict[str, str]]] = {
    "local_media": (True, {}),
    "base64": (False, {}),
    "base64_min_edge_1": (False, {"VLMEVAL_MIN_IMAGE_EDGE": "1"}),
}
"""Ways in which images travel: by path, or as JPEG; with variables of the kit."""


def served(run: Path, media: Path) -> tuple[subprocess.Popen[str], str]:
    """The server of a run, ready, and its base address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = ["serve", str(run), "--port", port, "--media", str(media), "--name", "run"]
    server = subprocess.Popen(
        [sys.executable, "-m", "sailvit", *words], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    server.stdout.readline()
    # The line comes before the socket listens.
    for _ in range(100):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", int(port))) == 0:
                break
        time.sleep(0.1)
    return server, f"http://127.0.0.1:{port}/v1"


def asked_by_kit(kit: str, way: str, folder: Path, address: str) -> Path:
    """The folder of the kit's predictions and scores."""
    local, variables = WAYS[way]
    model = {"class": "LMDeployAPI", "model": "run", "api_base": f"{address}/chat/completions"}
    told = {"max_tokens": LONGEST, "local_media": local, "retry": 1, "verbose": False}
    data = {name: {"class": kind, "dataset": name} for name, kind, *_ in SETS.values()}
    config = folder / f"{way}.json"
    config.write_text(json.dumps({"model": {"run": model | told}, "data": data}))
    words = [kit, "-m", "vlmeval", "--config", str(config), "--judge", "exact_matching"]
    words += ["--api-nproc", "8", "--work-dir", str(folder / way)]
    env = os.environ | variables | {"LMUData": str(folder / "lmu")}
    with (folder / f"{way}.log").open("w") as log:
        subprocess.run(words, env=env, check=True, stdout=log, stderr=log)
    return folder / way / "run"


def kit_score(folder: Path, name: str) -> float:
    """The kit's score of one of our sets, in our unit."""
    theirs, _, ending, columns, factor = SETS[name]
    path = folder / f"run_{theirs}_{ending}"
    if ending == "score.json":
        return float(json.loads(path.read_text())[columns])
    # The whole set is the first row of a table by category.
    row = next(csv.DictReader(path.open()))
    values = [float(row[column]) for column in columns.split()]
    return factor * sum(values) / len(values)


def compared(ours: Path, theirs: Path, name: str) -> dict[str, int]:
    """Counts of answers, of equal ones, and of empty ones that the kit calls failed."""
    mine = answers(ours / f"run_{name}.xlsx")
    kit = answers(theirs / f"run_{SETS[name][0]}.xlsx")
    assert mine.keys() == kit.keys(), name
    equal = sum(kit[index] == text for index, text in mine.items())
    empty = sum(text == "" and FAILED in kit[index] for index, text in mine.items())
    return {"answers": len(mine), "equal": equal, "empty": empty}


def answers(path: Path) -> dict[str, str]:
    """Predictions of a spreadsheet by index, without blanks around them."""
    rows = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
    names = next(rows)
    index, said = names.index("index"), names.index("prediction")
    return {str(row[index]): str(row[said] or "").strip() for row in rows}


def main() -> int:
    """Run both, compare, and write what was found."""
    reader = argparse.ArgumentParser()
    reader.add_argument("run", type=Path)
    reader.add_argument("kit")
    reader.add_argument("--questions", type=int, default=32)
    given = reader.parse_args()
    os.environ["no_proxy"] = "*"
    with tempfile.TemporaryDirectory() as made:
        found = measured(given, Path(made))
    version = subprocess.run(
        [given.kit, "-c", "import importlib.metadata as m; print(m.version('ms-vlmeval'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    command = f"python benchmarks/vlmevalkit.py RUN KIT --questions {given.questions}"
    publish("vlmevalkit", command, {"reference": f"ms-vlmeval {version}", "ways": found})
    exact = found["local_media"].values()
    return int(any(each["kit"] != each["ours"] for each in exact))


def measured(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Scores and counts by way and set."""
    words = ["--suite", "demo", "--questions", str(given.questions), "--prompts", "vlmevalkit"]
    words += ["--max-new-tokens", str(LONGEST), "--matcher", "2025-08", "--out", "ours"]
    link = folder / "run"
    link.symlink_to(given.run.resolve(), target_is_directory=True)
    command = [sys.executable, "-m", "sailvit", "evaluate", str(link), *words]
    subprocess.run(command, cwd=folder, check=True)
    (label,) = json.loads((folder / "ours" / "results.json").read_text())["models"].items()
    (folder / "lmu" / "images").mkdir(parents=True)
    for name, (theirs, *_) in SETS.items():
        shutil.copy(folder / "ours/demo" / f"{name}.tsv", folder / "lmu" / f"{theirs}.tsv")
    server, address = served(given.run, folder / "lmu" / "images")
    found: dict[str, Any] = {}
    try:
        for way in WAYS:
            kit = asked_by_kit(given.kit, way, folder, address)
            found[way] = {
                name: {
                    "ours": round(label[1]["sets"][name]["score"], 4),
                    "kit": round(kit_score(kit, name), 4),
                    **compared(folder / "ours" / label[0], kit, name),
                }
                for name in SETS
            }
            print(way, json.dumps(found[way], indent=1))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    return found


if __name__ == "__main__":
    sys.exit(main())

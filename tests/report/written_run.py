"""A realistic run folder, as training, evaluation and affinity would leave it."""

import base64
import struct
import zlib

import numpy as np

from sailvit.core.run import RunFolder, append_line, write_json

STAGES = (
    ("coarse", {"connector": 1.0}, ("next_token", "contrastive"), 250.0),
    ("fine", {"connector": 1.0, "tower": 1.0}, ("next_token", "contrastive"), 170.0),
    ("knowledge", {"connector": 1.0, "tower": 0.5, "language": 0.1}, ("next_token",), 110.0),
)
TASKS = ("caption", "colour", "counting", "ocr", "chart", "arithmetic")


def write_run(path, steps):
    """A run folder whose curves have `steps` steps per stage."""
    run, rng = RunFolder(path), np.random.default_rng(0)
    path.mkdir(parents=True)
    run.recipe.write_text("name: demo\nseed: 3\nstages:\n- name: coarse\n")
    for index, (name, train, objectives, speed) in enumerate(STAGES):
        _write_metrics(run, rng, steps, stage=(index, name, train, objectives, speed))
        for when, step in (("first steps", 10), ("end", steps)):
            rows = [_proof_row(part, part in train) for part in ("tower", "connector", "language")]
            append_line(
                run.proofs,
                {
                    "stage": name,
                    "stage_index": index,
                    "step": step,
                    "when": when,
                    "ok": True,
                    "rows": rows,
                },
            )
    write_json(run.manifest, _manifest(steps))
    write_json(run.evaluation, _evaluation(rng))
    write_json(
        run.affinity, {"models": {"base": _features(rng, 6.0), "refined": _features(rng, 2.5)}}
    )
    return run


def _write_metrics(run, rng, steps, *, stage):
    index, name, train, objectives, speed = stage
    start = {"next_token": 3.2 / (index + 1), "contrastive": 1.5}
    for step in range(1, steps + 1):
        fall = 0.25 + 0.75 * np.exp(-3 * step / steps)
        line = {
            "stage": name,
            "stage_index": index,
            "step": step,
            "samples": step * 16,
            "tokens": step * 2000,
            "answer_tokens": 300,
            "padding": float(rng.uniform(0.01, 0.05)),
            "lr": {part: 1e-3 * share for part, share in train.items()},
            "loss": {o: float(start[o] * fall + rng.normal(0, 0.06)) for o in objectives},
            "grad_norm": 1.0,
            "seconds": 16 / speed,
            "wait": 0.02 * 16 / speed,
            "samples_per_s": speed + float(rng.normal(0, speed / 12)),
            "answer_tokens_per_s": speed * 19,
            "mfu": None,
        }
        append_line(run.metrics, line)


def _proof_row(part, trains):
    size = {"tower": 812_000, "connector": 98_432, "language": 1_104_128}[part]
    trained, frozen = (size, 0) if trains else (0, size)
    return {
        "part": part,
        "planned": trained,
        "in_optimizer": trained,
        "moved": trained,
        "frozen": frozen,
        "frozen_identical": frozen,
        "lr": 1e-3 if trains else 0.0,
        "verdict": "as planned",
    }


def _manifest(steps):
    return {
        "name": "demo",
        "created": "2031-05-04T10:20:30+00:00",
        "sailvit": "0.1.0",
        "versions": {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"},
        "machine": {"cpu": "2 cores", "memory": "8 GiB", "device": "cpu"},
        "seed": 3,
        "parents": {
            "tower": {"source": "sailvit:world-tower", "fingerprint": "9f2c51e07ab3"},
            "connector": {"source": "fresh, seed 3", "fingerprint": "41d0e2b87c55"},
            "language": {"source": "sailvit:world-language", "fingerprint": "c07718fe2d90"},
        },
        "data": {"world-coarse": "5b1d22aa90fe", "world-fine": "0d9ce34417b2"},
        "stages": [
            {
                "name": name,
                "index": index,
                "steps": steps,
                "samples": steps * 16,
                "tokens": steps * 2000,
                "seconds": steps * 16 / speed,
                "train": train,
                "start": {},
                "parts": {
                    part: f"stages/{index:02d}-{name}/{part}"
                    for part in ("tower", "connector", "language")
                },
            }
            for index, (name, train, _, speed) in enumerate(STAGES)
        ],
        "resumed": [],
    }


def _evaluation(rng):
    base = dict(zip(TASKS, (0.31, 0.52, 0.44, 0.05, 0.21, 0.56), strict=True))
    refined = dict(zip(TASKS, (0.48, 0.93, 0.61, 0.34, 0.47, 0.55), strict=True))
    examples = [
        {
            "task": task,
            "image": None if task == "arithmetic" else scene(rng),
            "question": f"How many red circles are there in the {task} scene?",
            "answer": "two red circles",
            "predictions": {"base": "one <b>blue</b> square", "refined": "two red circles"},
            "correct": {"base": False, "refined": True},
        }
        for task in TASKS
    ]
    models = {
        "base": {
            "label": "base tower",
            "mean": float(np.mean(list(base.values()))),
            "tasks": base,
            "count": 1200,
        },
        "refined": {
            "label": "refined tower",
            "mean": float(np.mean(list(refined.values()))),
            "tasks": refined,
            "count": 1200,
        },
    }
    return {
        "models": models,
        "examples": examples,
        "gain": {"mean": 0.215, "low": 0.19, "high": 0.24, "level": 0.95},
    }


def _features(rng, gap):
    return {
        "visual": (rng.normal(size=(300, 2)) + np.array([gap, gap / 3])).round(4).tolist(),
        "text": rng.normal(size=(200, 2)).round(4).tolist(),
        "distances": {"nearest": gap / 5, "wasserstein": gap, "mean": gap + 1},
        "explained": [0.41, 0.09],
    }


def scene(rng, size=64):
    """A PNG of coloured squares as a data URI, written by hand: tests of the report need no imaging library."""
    pixels = np.full((size, size, 3), 240, np.uint8)
    for _ in range(4):
        y, x = rng.integers(0, size - 16, 2)
        pixels[y : y + 14, x : x + 14] = rng.integers(0, 220, 3)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()

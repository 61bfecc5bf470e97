"""A folder as `sailvit evaluate`, `probe` and `affinity` leave it."""

import base64

import numpy as np

from sailvit.core.run import append_lines, write_json

MODELS = ("base", "refined")
PICTURE = "data:image/webp;base64," + base64.b64encode(b"RIFF....WEBPVP8L").decode()


def write_evaluation(folder, count=6):
    """Two models on two sets of `count` questions each; the first is right on every other one."""
    sets = ("MMStar", "MME")
    write_json(folder / "results.json", _results(sets, count))
    for name in sets:
        write_json(folder / "questions" / f"{name}.json", _questions(name, count))
        for number, model in enumerate(MODELS):
            (folder / model).mkdir(exist_ok=True)
            lines = [
                {"index": str(n), "question": "q", "prediction": f"{model} says {n}"}
                for n in range(count)
            ]
            (folder / model / f"{model}_{name}.jsonl").unlink(missing_ok=True)
            append_lines(folder / model / f"{model}_{name}.jsonl", lines)
            answers = [
                {
                    "index": str(n),
                    "credit": float(number or n % 2),
                    "understood": "A",
                    "way": "rule",
                }
                for n in range(count - 1)
            ]
            value = {"answers": answers, "unparsed": 0}
            write_json(folder / model / f"{name}.answers.json", value)
    write_json(folder / "probe.json", probes())
    write_json(folder / "affinity.json", affinity())
    return folder


def probes():
    return [
        {
            **{"tower": tower, "probe": "knn", "layer": layer, "set": "digits", "metric": "top-1"},
            **{"value": 70.0 + 5 * layer, "low": 60.0, "high": 90.0, "n": 50},
        }
        for tower in MODELS
        for layer in (1, 2, 3)
    ]


def measured(value, **changes):
    return {
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "chance": 0.5,
        "n": 5,
        **changes,
    }


def affinity():
    rng = np.random.default_rng(0)
    clouds = [
        {
            **{"tower": tower, "language": "qwen"},
            **{side: rng.normal(size=(60, 2)).tolist() for side in ("visual", "text")},
            "explained": {"visual": [0.3, 0.2], "text": [0.1, 0.05]},
            "distances": {n: measured(2.0) for n in ("nearest", "wasserstein", "mean")},
            "mirrored": {},
            "counts": {"visual": 60, "text": 60},
        }
        for tower in MODELS
    ]
    blocks = [{"block": n, "cka": measured(0.8), "change": measured(0.2)} for n in (1, 2, 3)]
    return {
        **{"affinity": 1, "seed": 0, "left_out": [{"what": "captions", "why": "there are none"}]},
        "images": {"path": "pictures", "published": list("abcde"), "skipped": 0, "reasons": {}},
        "published": clouds,
        "paired": [
            {
                "tower": "base",
                "language": "qwen",
                "pairs": 9,
                "measures": {"linear_cka": measured(0.4)},
            }
        ],
        "joint": [joint(tower, rng) for tower in MODELS],
        "correspondence": [
            {"tower": "base", "set": "crops", "score": measured(0.3, low=None, high=None)}
        ],
        "drift": [{"tower": "refined", "base": "base", "blocks": blocks}],
    }


def joint(tower, rng):
    plane = {side: rng.normal(size=(40, 2)).tolist() for side in ("visual", "text")}
    return {
        **{"tower": tower, "language": "qwen", "plane": {**plane, "explained": [0.2, 0.1]}},
        **{"distances": {"nearest": measured(3.0)}, "retrieval": {}, "alignment": None},
        "integration": {"rate": measured(1.2), "layers": [4.0, 5.0, 7.0]},
    }


def _results(sets, count):
    scores = {"MMStar": 61.25, "MME": 1844.0}
    models = {
        model: {
            "sets": {
                name: {
                    **{"score": scores[name] + number, "metrics": {"Overall": 60.0}},
                    **{"total": count, "unparsed": number, "judged": 0, "notes": []},
                }
                for name in sets
            },
            "average": {"value": None, "missing": ["AI2D_TEST"], "columns": {}, "said": "no judge"},
            "not asked": {},
        }
        for number, model in enumerate(MODELS)
    }
    comparison = {
        **{"questions": "MMStar", "base": "base", "other": "refined", "count": count},
        **{"difference": 50.0, "low": 20.0, "high": 80.0, "gained": 3, "lost": 0},
        **{"p_value": 0.01, "corrected": 0.02, "word": "improves"},
    }
    return {"matcher": "2026-06", "judge": None, "models": models, "comparison": [comparison]}


def _questions(name, count):
    questions = [
        {
            **{"index": str(n), "question": f"what is {n}?", "options": {"A": "red", "B": "blue"}},
            **{"answer": "A", "category": "colour", "pictures": [f"p{n % 2}"]},
        }
        for n in range(count)
    ]
    facts = {
        "set": name,
        "kind": "mcq",
        "md5": "0",
        "count": 10 * count,
        "shown": count,
        "room": 900,
    }
    return {**facts, "questions": questions, "pictures": {"p0": PICTURE, "p1": PICTURE}}

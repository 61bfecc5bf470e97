"""How every benchmark reports: one JSON line last, and the same with date, machine and versions in results/."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

import sailvit


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of what rounds found, with the least and the most."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def publish(name: str, command: str, values: dict[str, Any]) -> None:
    """Write results/<name>.json beside this file and print its one-line form."""
    result = {
        "benchmark": name,
        "command": command,
        "date": date.today().isoformat(),
        "machine": {
            "device": torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "sailvit": sailvit.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        **values,
    }
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))

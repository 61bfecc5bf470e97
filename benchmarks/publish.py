"""How every benchmark reports: one JSON line last, and the same with date, machine and versions in results/."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

import sailvit


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

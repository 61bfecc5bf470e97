"""Tables of questions in VLMEvalKit's layout, with small drawn images."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image


def image_cell(shade: int) -> str:
    """A picture of one shade in base64."""
    file = io.BytesIO()
    Image.fromarray(np.full((12, 12, 3), shade, dtype=np.uint8)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write the rows; rows without a column leave it empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def choice_rows(count: int) -> list[dict[str, str]]:
    """Questions with two options; A is right."""
    return [
        {
            **{"index": str(n), "image": image_cell(n), "question": f"colour {n}?"},
            **{"A": "red", "B": "blue", "answer": "A"},
        }
        for n in range(count)
    ]

"""Weights written to a folder tensor by tensor, in files of a bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sailvit.checkpoint.streaming import Piece, write_file
from sailvit.core.run import write_json
from sailvit.models.guards.checkpoint_files import INDEX, WHOLE

MOST = 5_000_000_000
"""Bytes of a file of weights, as transformers writes them; a larger tensor has its own file."""


def write_weights(folder: Path, pieces: Sequence[Piece], *, most: int = MOST) -> None:
    """Write the pieces as transformers reads them: one file, or several with an index."""
    groups = _groups(pieces, most)
    if len(groups) == 1:
        write_file(folder / WHOLE, groups[0], {"format": "pt"})
        return
    places: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        write_file(folder / name, group, {"format": "pt"})
        places |= {piece.name: name for piece in group}
    total = sum(piece.size for piece in pieces)
    write_json(
        folder / INDEX,
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))},
    )


def _groups(pieces: Sequence[Piece], most: int) -> list[list[Piece]]:
    groups: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if groups[-1] and size + piece.size > most:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += piece.size
    return groups

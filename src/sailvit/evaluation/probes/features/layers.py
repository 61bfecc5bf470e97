"""A tower that gives the states of several blocks side by side, and how layers are named."""

from __future__ import annotations

from sailvit.core.errors import DataError
from sailvit.models.blocks import find_blocks
from sailvit.models.towers.layers import FeatureChoice
from sailvit.models.towers.tower import Tower


def layered(tower: Tower, layers: tuple[int, ...]) -> Tower:
    """The tower with the states after `layers`, counted from 1, side by side as its features.

    The last one is as the model returns it, after its final norm; the others are before it.
    """
    made = tower.around(tower.model, FeatureChoice(layers))
    return made.to(tower.mean.device).eval()


def block_count(tower: Tower) -> int:
    """Number of the tower's blocks."""
    return len(find_blocks(tower.model)[1])


def read_layers(text: str, count: int) -> tuple[int, ...]:
    """Layers from 1 to `count` that a text names: `all`, `last`, or numbers such as `-1,6,12`,
    where -1 is the last.

    Raises:
        DataError: it names none, or one that the tower does not have.
    """
    if text == "all":
        return tuple(range(1, count + 1))
    try:
        asked = [-1 if each == "last" else int(each) for each in text.split(",")]
    except ValueError as error:
        raise DataError(
            f"--layers {text} names no layers; write all, last, or numbers such as -1,6,12"
        ) from error
    # 0 becomes one more than there are, so the check below refuses it like any other wrong number.
    found = [each if each > 0 else count + 1 + each for each in asked]
    if wrong := [given for given, each in zip(asked, found, strict=True) if not 0 < each <= count]:
        raise DataError(
            f"--layers names {wrong[0]}, but the tower has {count} blocks; expected 1 to {count},"
            " or -1, the last, and before"
        )
    return tuple(sorted(set(found)))

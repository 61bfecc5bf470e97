"""The transformer blocks of a part, wherever its model keeps them."""

from __future__ import annotations

from torch import nn


def find_blocks(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """Name and content of the longest list of modules in `model`; an empty name and list when
    it has none.
    """
    # Every family names its list otherwise (layers, blocks, h, layer); length tells it from the
    # short lists inside a block.
    lists = [
        (name, list(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
    ]
    return max(lists, key=lambda item: len(item[1]), default=("", []))

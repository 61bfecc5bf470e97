"""The transformer blocks of a part, wherever its model keeps them."""

from __future__ import annotations

from torch import nn


def find_blocks(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """Name and content of the longest list of modules in `model` that lies in no other list; an
    empty name and list when it has none.
    """
    # Every family names its list otherwise (layers, blocks, h, layer). What lies inside a block,
    # such as its experts, is no list of blocks, however long.
    lists: dict[str, list[nn.Module]] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and not inside:
            lists[name] = list(module)
    return max(lists.items(), key=lambda item: len(item[1]), default=("", []))

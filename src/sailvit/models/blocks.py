"""The transformer blocks of a part, wherever its model keeps them."""

from __future__ import annotations

from torch import nn


def find_blocks(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """Name and content of the longest list of modules in `model` that lies in no other list; an
    empty name and list when it has none.

    A sequence of modules of one class, as timm has, is a list as well.
    """
    # Every family names its list otherwise (layers, blocks, h, layer). What lies inside a block,
    # such as its experts, is no list of blocks, however long.
    lists: dict[str, list[nn.Module]] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in lists)
        if not inside and _is_list(module):
            lists[name] = list(module.children())
    return max(lists.items(), key=lambda item: len(item[1]), default=("", []))


def _is_list(module: nn.Module) -> bool:
    alike = len({type(child) for child in module.children()}) == 1
    return isinstance(module, nn.ModuleList) or (isinstance(module, nn.Sequential) and alike)

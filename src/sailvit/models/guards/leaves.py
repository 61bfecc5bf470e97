"""What a tensor was computed from, by its graph alone: no gradient is computed."""

from __future__ import annotations

import torch


def leaves_of(tensor: torch.Tensor) -> set[int]:
    """Identities of the leaves of a tensor's graph."""
    nodes, seen, leaves = [tensor.grad_fn], set(), set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaves.add(id(getattr(node, "variable", None)))
        nodes += [following for following, _ in node.next_functions]
    return leaves

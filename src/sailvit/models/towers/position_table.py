"""Position tables of towers at another tile size than their config's: resized once, so that the
saved folder needs no flag.
"""

from __future__ import annotations

import copy
import inspect

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def at_size(model: PreTrainedModel, size: int) -> PreTrainedModel:
    """The model with its position table interpolated once to tiles of `size` px, and its config.

    The family's own code interpolates, as it would at every forward pass; what is trained and
    saved afterwards is the new table, and `AutoModel` needs no flag to use it. A model that is
    of this size, that takes any size by itself, or whose tables are no plain ones comes back as
    it is.
    """
    known = getattr(model.config, "image_size", None)
    if not isinstance(known, int) or known == size:
        return model
    if "interpolate_pos_encoding" not in inspect.signature(model.forward).parameters:
        return model
    embeddings = next(
        (part for part in model.modules() if hasattr(part, "interpolate_pos_encoding")), None
    )
    config = copy.deepcopy(model.config)
    config.image_size = size
    held = model.state_dict()
    with torch.device("meta"):
        resized = type(model)(config)
    changed = [name for name, to in resized.state_dict().items() if to.shape != held[name].shape]
    if embeddings is None or len(changed) != 1:
        return model
    to = resized.state_dict()[changed[0]]
    # Of the new number of tokens: some families return the old table for the old one.
    tokens = held[changed[0]].new_zeros(1, *to.shape[-2:])
    table = embeddings.interpolate_pos_encoding(tokens, size, size)
    return _filled(model, config, {**held, changed[0]: table.reshape(to.shape).contiguous()})


def _filled(
    model: PreTrainedModel, config: object, state: dict[str, torch.Tensor]
) -> PreTrainedModel:
    """A model of the same class and config, with these weights."""
    device = next(iter(state.values())).device
    with torch.random.fork_rng(devices=[]), torch.device(device):
        made: PreTrainedModel = type(model)(config)
    made.load_state_dict(state, assign=True)
    for name, weight in model.named_parameters():
        made.get_parameter(name).requires_grad_(weight.requires_grad)
    return made.train(model.training)

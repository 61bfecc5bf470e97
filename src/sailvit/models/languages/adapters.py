"""Adapters of the language (LoRA), made by peft: two thin matrices beside each of its own, which
alone train.

peft puts them into the model in place, so the language stays the class that transformers loaded,
and the ways of reading, compiling, sharding and saving it stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sailvit.core.errors import ModelError
from sailvit.core.recipe import LoraConfig
from sailvit.core.seeding import derive_seed
from sailvit.distributed.sharding import whole
from sailvit.models.guards.errors import FOREIGN, ForeignErrors
from sailvit.models.guards.untouched import untouched
from sailvit.models.packing.proof import draw_tokens

FOLDER = "adapter"
"""Folder of the adapters by themselves, inside that of the merged language."""
_NAME = "default"
"""What peft calls the one adapter of a layer, where nobody gives it a name."""
_BASE = "base_layer."
"""What peft puts before the names of a layer's own weights."""
_TOKENS = 4
"""Length of the text whose reading shows which layers are called."""


_LINEAR = (nn.Linear.forward, Conv1D.forward)
"""Forwards of linear layers that need no trial."""


@dataclass(frozen=True)
class Adapters:
    """The adapters of one language."""

    names: frozenset[str]
    """Names, within the language, of their parameters."""
    layers: int
    """Layers that have one."""
    bare: float
    """Share, 0..1, of the parameters in matrices of the blocks that have none, such as experts
    that are held as one tensor."""
    keep: bool
    """Whether they are also saved by themselves."""

    def __str__(self) -> str:
        """A sentence for the run's notes."""
        rest = (
            f"; {self.bare:.0%} of the parameters in its other matrices, embeddings and head left"
            " out, have none"
            if self.bare > 0.005
            else ""
        )
        return (
            f"the language trains through adapters at {self.layers} layers; its own weights stay"
            f" as they are, embeddings of new tokens included{rest}"
        )


def add_adapters(language: PreTrainedModel, config: LoraConfig, seed: int) -> Adapters:
    """Give the language adapters, in place, which change nothing until they train.

    Raises:
        ModelError: peft is missing; no layer is named as `target` asks; or adapters there would
            do nothing, as the model does not call the layer.
    """
    chosen = _chosen(language, config)
    _refuse_shared(language, chosen)
    before = {id(parameter) for parameter in language.parameters()}
    with torch.random.fork_rng(devices=[]):
        # The second matrix begins with zeros; the first is drawn.
        torch.manual_seed(derive_seed(seed, "adapters"))
        _inject(language, config, chosen)
    layers = dict(adapted_layers(language))
    if strange := sorted(set(layers) ^ set(chosen)):
        raise ModelError(
            f"peft puts adapters at other places of {type(language).__name__} than at the layers"
            f" that were chosen ({strange[0]}, ...), as it does for experts that are held as one"
            " tensor, which is not supported here: name the layers in model.lora.target that are"
            " no experts, such as [q_proj, v_proj]"
        )
    _refuse_uncalled(language, layers)
    names = {n for n, parameter in language.named_parameters() if id(parameter) not in before}
    bare = _bare(language, names)
    return Adapters(frozenset(names), len(layers), bare, config.keep)


def merged(language: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The language's whole state with its adapters added to the matrices beside them, under the
    names and in the shapes that it has without adapters.

    Matrices with an adapter are new tensors on the CPU, so a GPU does not hold them twice.
    """
    made = dict(state)
    for place, layer in adapted_layers(language):
        first, second = (made.pop(f"{place}.lora_{each}.{_NAME}.weight") for each in "AB")
        for name in [name for name in made if name.startswith(f"{place}.{_BASE}")]:
            made[place + name.removeprefix(f"{place}.base_layer")] = made.pop(name)
        added = second @ first * layer.scaling[_NAME]
        # GPT-2's linear layer holds its weight transposed.
        added = added.T if layer.fan_in_fan_out else added
        weight = made[f"{place}.weight"]
        made[f"{place}.weight"] = (weight + added.to(weight.dtype)).cpu()
    return made


def save_adapters(
    language: PreTrainedModel, adapters: Adapters, state: Mapping[str, torch.Tensor], folder: Path
) -> None:
    """Write the adapters by themselves, as peft's `PeftModel.from_pretrained` loads them."""
    folder.mkdir(parents=True)
    # Without its own name, as peft saves them, so that a user may give them another.
    tensors = {
        f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": state[name].contiguous().cpu()
        for name in sorted(adapters.names)
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config: Any = language.peft_config[_NAME]
    config.save_pretrained(folder)


def _chosen(language: PreTrainedModel, config: LoraConfig) -> list[str]:
    """Names of the layers that get an adapter."""
    # The head may be tied to the embeddings, and its scores are computed outside its own forward.
    head = language.get_output_embeddings()
    linear = [
        name
        for name, module in language.named_modules()
        if module is not head and _is_linear(module)
    ]
    if not linear:
        raise ModelError(
            f"{type(language).__name__} has no linear layer that an adapter could stand beside;"
            " leave model.lora out"
        )
    return linear if config.target == "all-linear" else _named(language, linear, config.target)


def _is_linear(module: nn.Module) -> bool:
    """Whether a layer computes what an adapter can stand beside: a product with its weight. A
    router that gives a tuple is a linear layer by its class alone.
    """
    if type(module).forward in _LINEAR:
        return True
    if not isinstance(module, nn.Linear):
        return False
    weight = module.weight.detach()
    given = torch.ones(1, module.in_features, dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            found = module(given)
    except FOREIGN:
        return False
    if not (isinstance(found, torch.Tensor) and found.shape == (1, module.out_features)):
        return False
    expected = nn.functional.linear(given, weight, module.bias)
    return found.is_meta or torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


def _named(language: PreTrainedModel, linear: list[str], targets: tuple[str, ...]) -> list[str]:
    """Those of the linear layers whose names end in one of the targets."""
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise ModelError(
                f"model.lora.target names {target!r}, but {type(language).__name__} has no"
                f" such linear layer; it has {', '.join(known)}"
            )
    return [
        name for name in linear if f".{name}".endswith(tuple(f".{target}" for target in targets))
    ]


def _refuse_shared(language: PreTrainedModel, chosen: Collection[str]) -> None:
    """Refuse layers whose weight stands at several places of the model: each place would get an
    adapter of its own, and there is one matrix to merge them into.
    """
    places: dict[int, list[str]] = {}
    for name, parameter in language.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    for name in chosen:
        if len(names := places[id(language.get_submodule(name).weight)]) > 1:
            raise ModelError(
                f"{type(language).__name__} has one weight at several places ({names[0]},"
                f" {names[1]}, ...), where adapters could not be merged; name layers in"
                " model.lora.target whose weights stand once, or leave model.lora out"
            )


def _inject(language: PreTrainedModel, config: LoraConfig, chosen: list[str]) -> None:
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ModelError(
            f"model.lora needs peft, which cannot be imported ({error}):"
            " pip install 'sailvit[lora]', or leave model.lora out"
        ) from error
    alpha = 2 * config.rank if config.alpha is None else config.alpha
    wanted = PeftConfig(
        r=config.rank,
        lora_alpha=alpha,
        lora_dropout=config.dropout,
        target_modules=chosen,
        task_type="CAUSAL_LM",
        base_model_name_or_path=language.name_or_path or None,
    )
    doing = f"peft cannot put adapters into {type(language).__name__}"
    with ForeignErrors(doing), warnings.catch_warnings():
        # About settings that it then makes right itself, as for GPT-2's transposed layers.
        warnings.simplefilter("ignore")
        inject_adapter_in_model(wanted, language)
    for _, layer in adapted_layers(language):
        # Under autocast it would make a float32 copy of every input, only to round it again.
        layer.cast_input_dtype_enabled = False


def adapted_layers(language: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and layer of everything that has an adapter."""
    for name, module in language.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield name, module


def without_gradient(language: nn.Module, among: Collection[str]) -> list[str]:
    """Those of the names that are first matrices of adapters whose second matrix is all zeros,
    through which no gradient comes to them.
    """
    # Sharded tensors are gathered, so every process has to ask for the same ones.
    pairs = [
        (f"{place}.lora_A.{_NAME}.weight", layer.lora_B[_NAME].weight)
        for place, layer in adapted_layers(language)
    ]
    return [first for first, second in pairs if first in among and not whole(second).any()]


def _refuse_uncalled(language: PreTrainedModel, layers: Mapping[str, Any]) -> None:
    """Refuse adapters at layers whose weights the model reads without calling them."""
    table = language.get_input_embeddings()
    if table.weight.is_meta:
        return
    called: set[str] = set()
    handles = [
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, layer in layers.items()
    ]
    tokens = draw_tokens(int(table.num_embeddings), (_TOKENS,), table.weight.device)[None]
    try:
        with (
            ForeignErrors(f"{type(language).__name__} cannot be run with adapters"),
            untouched(language),
        ):
            language(input_ids=tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if silent := sorted(layers.keys() - called):
        raise ModelError(
            f"{type(language).__name__} does not call {len(silent)} of the layers that"
            f" model.lora.target names ({silent[0]}, ...), so adapters there would do nothing:"
            " name other layers, such as [q_proj, v_proj]"
        )


def _bare(language: PreTrainedModel, names: set[str]) -> float:
    """Share of the parameters in matrices without an adapter, embeddings and head left out."""
    left_out = {
        id(module.weight)
        for module in language.modules()
        if isinstance(module, nn.Embedding) or module is language.get_output_embeddings()
    }
    sizes = [
        (parameter.numel(), f".{_BASE}" in name)
        for name, parameter in language.named_parameters()
        if parameter.ndim >= 2 and name not in names and id(parameter) not in left_out
    ]
    lacking, every = sum(n for n, beside in sizes if not beside), sum(n for n, _ in sizes)
    return float(lacking / max(every, 1))

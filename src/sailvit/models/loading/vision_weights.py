"""The weights of a vision model out of a larger checkpoint, found by their names; nothing else of
it is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModel, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils import cached_file

from sailvit.core.errors import ModelError
from sailvit.models.guards.checkpoint_files import INDEX, WHOLE
from sailvit.models.loading.llava_layout import NAMED_TOWER
from sailvit.models.loading.quiet import quietly
from sailvit.models.loading.vision import VisionModel, locate


def load_whole(
    source: str, vision: VisionModel, options: dict[str, Any], *, attention: str | None
) -> tuple[PreTrainedModel, set[str]]:
    """The model in fp32 of a checkpoint that holds no other, and the names of the weights that
    it lacks.
    """
    made: Any = AutoModel
    if vision.kind is not None and not vision.plain:
        # Transformers warns of a setting that only AutoModel knows.
        made = vision.kind
        options = {name: value for name, value in options.items() if name == "revision"}
    with quietly():
        model, info = made.from_pretrained(
            source,
            config=vision.config,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    return model, set(info["missing_keys"])


def load_part(
    source: str, vision: VisionModel, options: dict[str, Any], *, attention: str | None
) -> tuple[PreTrainedModel, set[str]]:
    """The vision model in fp32 with its share of the weights of a larger checkpoint, and the
    names of the weights that this one lacks.

    Raises:
        ModelError: the checkpoint holds none of its weights, or those of several such models.
    """
    kind = vision.kind
    assert kind is not None
    files = Files(source, options.get("revision"))
    with torch.device("meta"):
        blank = kind._from_config(vision.config)
    names = _by_name(blank, files, vision, source)
    if len(names) == len(blank.state_dict()):
        state = files.read(names)
    else:
        remote = options["trust_remote_code"]
        state = max(files.read(names), _as_whole(files, vision, trust_remote_code=remote), key=len)
    _refuse_unfit(state, blank, vision, source)
    with quietly():
        # Not load_state_dict: renamings and tied weights are treated as in a folder of its own.
        model, info = kind.from_pretrained(
            None,
            config=vision.config,
            state_dict=state,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
        )
    return model, set(info["missing_keys"])


def _refuse_unfit(
    state: dict[str, torch.Tensor], blank: PreTrainedModel, vision: VisionModel, source: str
) -> None:
    """Refuse a checkpoint without weights of the tower, or with some of other shapes."""
    kind, named = vision.config.model_type, getattr(vision.whole, NAMED_TOWER, None)
    if not state:
        elsewhere = f": its tower is {named!r} as it was released; name that one" if named else ""
        raise ModelError(f"{source!r} holds no weights of its vision model ({kind}){elsewhere}")
    expected = blank.state_dict()
    for name, tensor in state.items():
        if name in expected and tensor.shape != expected[name].shape:
            # Training under DeepSpeed's stage 3 saves empty tensors when they are not gathered.
            raise ModelError(
                f"{source!r} holds {name} of the {kind} as {list(tensor.shape)}, and its config"
                f" makes it {list(expected[name].shape)}; config and weights are of different"
                " models, or the weights were not gathered when they were saved: use another copy"
            )


def prefix_of(names: Collection[str], held: Iterable[str], path: str = "") -> str:
    """The prefix under which `held` has most of `names`; of several that have as many, the one
    that ends in `path`.

    Raises:
        LookupError: none of the names is held, or several prefixes do equally well.
    """
    wanted = set(names)
    counts = Counter(
        name.removesuffix(end) for name in held for end in _endings(name) if end in wanted
    )
    most = max(counts.values(), default=0)
    best = sorted(prefix for prefix, count in counts.items() if count == most)
    meant = [prefix for prefix in best if path and f".{prefix}".endswith(f".{path}.")]
    if len(best) == 1 or len(meant) == 1:
        return (meant or best)[0]
    raise LookupError(" and ".join(best))


def _endings(name: str) -> Iterator[str]:
    """A dotted name, and what is left of it without its first word, its first two, ..."""
    words = name.split(".")
    return (".".join(words[at:]) for at in range(len(words)))


def _by_name(
    blank: PreTrainedModel, files: Files, vision: VisionModel, source: str
) -> dict[str, str]:
    """The model's weights that the checkpoint holds behind one prefix: its names for them, and
    the model's.

    Raises:
        ModelError: it holds as many of them behind another prefix.
    """
    expected = blank.state_dict()
    found: dict[str, str] = {}
    # Older checkpoints spell some names differently; saving reverts to that spelling.
    for names in (list(expected), list(revert_weight_conversion(blank, dict(expected)))):
        try:
            prefix = prefix_of(names, files.names, vision.path)
        except LookupError as error:
            if not str(error):
                continue
            raise ModelError(
                f"{source!r} holds several vision models ({vision.config.model_type}) alike, under"
                f" {error}; save the one that you mean by itself, and name its folder"
            ) from error
        held = {prefix + name: name for name in names if prefix + name in files.names}
        found = max(found, held, key=len)
    return found


def _as_whole(
    files: Files, vision: VisionModel, *, trust_remote_code: bool
) -> dict[str, torch.Tensor]:
    """The model's weights as the whole model would load them, with its renamings and splittings;
    all other weights stay on the meta device, unread.
    """
    whole, path, part = locate(vision.whole, vision.config, trust_remote_code=trust_remote_code)
    changes = get_model_conversion_mapping(whole)
    renamed = [change for change in changes if isinstance(change, WeightRenaming)]
    converted = [change for change in changes if isinstance(change, WeightConverter)]
    state = whole.state_dict()
    needed = {
        name: name
        for name in files.names
        if rename_source_key(name, renamed, converted, whole.base_model_prefix, state)[
            0
        ].startswith(f"{path}.")
    }
    with quietly():
        convert_and_load_state_dict_in_model(
            whole,
            files.read(needed),
            LoadStateDictConfig(weight_mapping=changes, dtype=torch.float32),
        )
    return {name: tensor for name, tensor in part.state_dict().items() if not tensor.is_meta}


class Files:
    """The tensors of a folder or hub id in safetensors, by name; each is read when asked for."""

    def __init__(self, source: str, revision: str | None) -> None:
        self._source, self._revision = source, revision
        self._file_of = self._listed()

    @property
    def names(self) -> Collection[str]:
        """The names of all tensors."""
        return self._file_of.keys()

    def read(self, wanted: Mapping[str, str]) -> dict[str, torch.Tensor]:
        """The tensors of these names, under the names that they are mapped to.

        Of a hub id only the files that hold any of them are downloaded.
        """
        state = {}
        for file in sorted({self._file_of[name] for name in wanted}):
            with safe_open(self._path(file), "pt") as held:
                for name in set(held.keys()) & set(wanted):
                    state[wanted[name]] = held.get_tensor(name)
        return state

    def path_of(self, name: str) -> str:
        """The file that holds the tensor of that name, on this machine."""
        return self._path(self._file_of[name])

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the tensor of that name."""
        with safe_open(self.path_of(name), "pt") as held:
            return tuple(held.get_slice(name).get_shape())

    def _listed(self) -> dict[str, str]:
        whole = cached_file(
            self._source,
            WHOLE,
            revision=self._revision,
            _raise_exceptions_for_missing_entries=False,
        )
        if whole is not None:
            with safe_open(whole, "pt") as held:
                return dict.fromkeys(held.keys(), WHOLE)
        index = json.loads(Path(self._path(INDEX)).read_text(encoding="utf-8"))
        listed: dict[str, str] = index["weight_map"]
        return listed

    def _path(self, file: str) -> str:
        path: str = cached_file(self._source, file, revision=self._revision)
        return path

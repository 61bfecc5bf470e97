"""A recipe's model with random weights: made from configs alone, to measure speed without a
download.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sailvit.core.recipe import ModelConfig, Packing
from sailvit.core.seeding import derive_seed
from sailvit.models.loading.build import (
    ModelBundle,
    apply_image_config,
    hub_options,
    layout_of,
    load_connector,
    load_preprocessor,
)
from sailvit.models.loading.sketch import config_source, find_tokenizer, read_config
from sailvit.models.packing.attention import TOWER, register_attention
from sailvit.models.structure.mllm import MLLM
from sailvit.models.structure.packing_choice import choose_way
from sailvit.models.towers.preprocessing import read_preprocessing
from sailvit.models.towers.tower import Tower


def unlearned(
    config: ModelConfig, seed: int, device: torch.device, packing: Packing = "auto"
) -> ModelBundle:
    """The model on `device` in fp32, every weight drawn at random, with the recipe's tokenizer
    or a stand-in.

    Raises:
        ModelError: a config cannot be found, or grid and connector do not fit.
    """
    register_attention()
    fresh = config.model_copy(
        update={"connector": config.connector.model_copy(update={"source": None})}
    )
    language_config = read_config(config, "language")
    tokenizer = find_tokenizer(config) or stand_in_tokenizer(config.placeholder)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(derive_seed(seed, "unlearned"))
        tower, preprocessor = _tower(config)
        language = AutoModelForCausalLM.from_config(
            language_config, trust_remote_code=config.trust_remote_code
        ).float()
        if len(tokenizer) > language.get_input_embeddings().num_embeddings:
            language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        connector = load_connector(fresh, tower, language, seed)
        placeholder_id = tokenizer.convert_tokens_to_ids(config.placeholder)
        mllm = MLLM(tower, connector, language, placeholder_id)
    choose_way(mllm, packing)
    return ModelBundle(mllm, tokenizer, layout_of(mllm, config), preprocessor, config.day)


def stand_in_tokenizer(placeholder: str) -> PreTrainedTokenizerBase:
    """A tokenizer that takes every word and mark as one unknown token: right in number, about,
    if not in kind.
    """
    names = ["[UNK]", "[PAD]", "[END]", placeholder]
    core = Tokenizer(
        models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]")
    )
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[END]",
        additional_special_tokens=[placeholder],
    )


def _tower(config: ModelConfig) -> tuple[Tower, dict[str, object]]:
    vision = read_config(config, "tower")
    model = AutoModel.from_config(
        vision, attn_implementation=TOWER, trust_remote_code=config.trust_remote_code
    ).float()
    options = hub_options(config, "tower")
    preprocessor = apply_image_config(
        load_preprocessor(config_source(config.tower), options, config.image), config.image
    )
    return Tower(
        model, read_preprocessing(preprocessor, config.tower), config.feature_layer
    ), preprocessor

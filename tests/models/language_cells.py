"""What a language of any family can do, one function per column of docs/languages.md; each returns its cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from changed_runs import captured, process_alone, told_apart
from exported import LINEAGE, written
from small_tokenizers import CHATML, byte_tokenizer
from tiny_languages import VOCABULARY, language_of, text_sample
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from sailvit.core.batch import IGNORED
from sailvit.core.recipe import ConnectorConfig, ParallelConfig
from sailvit.core.run import RunFolder
from sailvit.data.processing.collate import collate
from sailvit.distributed.sharding import make_mesh, whole
from sailvit.inference.model import RunModel
from sailvit.interop.export.trained import Trained
from sailvit.models.blocks import find_blocks
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.structure.mllm import MLLM
from sailvit.models.structure.parallel import parallelize, shard
from sailvit.training.trainer import Trainer
from tiny_parts import Parts
from tiny_runs import recipe, three_stages, write_data

_NAMES = """
llama qwen2 qwen3 qwen3_moe qwen3_5_text qwen3_next lfm2 gemma gemma2 gemma3_text gpt_oss
deepseek_v2 deepseek_v3 phi3 phi olmo olmo2 olmo3 olmoe olmo_hybrid mistral mixtral llama4_text
falcon bloom mpt gpt2 gptj gpt_neo gpt_neox opt codegen stablelm nemotron persimmon cohere cohere2
glm glm4 granite granitemoe granitemoehybrid bamba falcon_h1 jamba zamba2 mamba mamba2 rwkv xlstm
recurrent_gemma starcoder2 ernie4_5 smollm3 hunyuan_v1_dense exaone4 minimax modernbert-decoder
deepseek_v32 deepseek_v4 axk1 axk2 glm_moe_dsa glm4_moe_lite longcat_flash minicpm3 youtu
bailing_hybrid kimi_linear ministral3 moshi trocr whisper gemma3n_text gemma4_text
afmoe apertus arcee aria_text biogpt bitnet cohere2_moe ctrl cwm dbrx diffllama doge dots1
ernie4_5_moe exaone_moe falcon_mamba flex_olmo gemma4_unified_text glm4_moe gpt_bigcode
gpt_neox_japanese granitemoeshared helium hunyuan_v1_moe internlm3 jais2 jetmoe lfm2_moe minimax_m2
ministral nanochat nemotron_h openai-gpt phimoe qwen2_moe qwen3_5_moe_text seed_oss
solar_open vaultgemma xglm zamba zaya
"""
FAMILIES = _NAMES.split()
"""Those of the table."""


@dataclass(frozen=True)
class Place:
    """A tiny language as a folder, and room for what is made of it."""

    folder: Path
    """Everything is below it."""
    family: str
    """transformers' model type."""
    parts: Parts = field(init=False)
    """The towers that it is joined with."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", Parts(self.folder / "parts"))

    @property
    def language(self) -> Path:
        """The language's folder."""
        return self.folder / "language"

    def save(self) -> PreTrainedModel:
        """Write the language and a tokenizer."""
        # Answers must see the image behind them, in families with windows too.
        kind = CONFIG_MAPPING[self.family]
        known = set(kind().to_dict()) & set(WINDOWS)
        model = language_of(self.family, **dict.fromkeys(known, 128))
        model.save_pretrained(self.language)
        byte_tokenizer(CHATML).save_pretrained(self.language)
        return model

    def bundle(self, tower: str = "siglip", connector: str = "merge_mlp") -> ModelBundle:
        """The language with a tower and a connector, loaded as a run does it."""
        config = self.parts.config(tower, connector=ConnectorConfig(kind=connector, merge=2))
        if connector == "mlp":
            config = self.parts.config(tower, connector=ConnectorConfig(kind="mlp", merge=1))
        return build(config.model_copy(update={"language": str(self.language)}), seed=0)


def load(place: Place) -> str:
    """The saved folder gives the same weights; whether head and embeddings are one."""
    made = place.save()
    language = place.bundle().mllm.language
    for name, tensor in made.state_dict().items():
        found = language.state_dict()[name]
        # Tokens may have been added.
        assert torch.equal(found[: len(tensor)] if found.ndim else found, tensor), name
    head, table = language.get_output_embeddings(), language.get_input_embeddings()
    return "tied" if head is not None and head.weight is table.weight else "yes"


def recompute(place: Place) -> str:
    """Worst difference of loss and gradients with the blocks computed again."""
    return _against(place, ParallelConfig(recompute={"language": "full"}))


def compiled(place: Place) -> str:
    """The same with compiled blocks, as torch's compiler captures them (backend aot_eager_decomp_partition)."""
    torch._dynamo.reset()
    with captured(), torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        return _against(place, ParallelConfig(compile=True))


def sharded(place: Place) -> str:
    """The same with sharded parameters (FSDP2, one process)."""
    with process_alone(place.folder / "store"):
        return _against(place, None)


def _against(place: Place, config: ParallelConfig | None) -> str:
    plain, other = place.bundle().mllm, place.bundle().mllm
    if config is None:
        shard(other, make_mesh("cpu", "shard", None), bf16=False, offload=False)
    else:
        parallelize(other, config, torch.device("cpu"), bf16=False)
    return told_apart(_trained(plain), _trained(other))


def _trained(model: MLLM) -> list[torch.Tensor | None]:
    """The loss of a pack of texts, and the language's gradients."""
    drawn = torch.Generator().manual_seed(5)
    texts = [torch.randint(3, VOCABULARY - 1, (length,), generator=drawn) for length in LENGTHS]
    batch = collate([[text_sample(text) for text in texts]])
    model.train()
    # What a family draws at random is drawn alike for both.
    torch.manual_seed(0)
    scores = model(batch).scores
    labels = batch.labels[batch.labels != IGNORED]
    loss = scores.loss(labels) / len(labels)
    loss.backward()
    gradients = [weight.grad for weight in model.language.parameters()]
    return [loss.detach(), *(None if g is None else whole(g) for g in gradients)]


WINDOWS = ("sliding_window", "attention_window", "attention_chunk_size", "window_size")
"""What configs call the tokens that a layer looks back."""

LENGTHS = (7, 1, 12)
"""Tokens of the texts that a changed run is compared on: longer than windows and chunks."""

COLUMNS: dict[str, Callable[[Place], str]] = {
    "load": load,
    "recompute": recompute,
    "compile": compiled,
    "shard": sharded,
}
"""The columns that need no training run; `load` comes first, as it writes the folder."""

NAMES = ("00-coarse", "01-fine", "02-world")


def stages(place: Place) -> PreTrainedModel:
    """Three stages: one run of connector, tower too, everything; returns the trained language.

    The run itself proves after the first steps of each stage that what is frozen stayed so, and
    that the rest moved. The saved languages are compared with the source bit by bit.
    """
    made = recipe(
        place.parts,
        write_data(place.folder),
        [{**each, "length": {"samples": 8}} for each in three_stages()],
        model=place.parts.config().model_dump() | {"language": str(place.language)},
    )
    run = RunFolder(place.folder / "run")
    bundle = Trainer(made, run).run()
    saved = [read(run.path / f"stages/{name}/language") for name in NAMES]
    first, *states = [dict(model.named_parameters()) for model in (read(place.language), *saved)]
    for state in states[:2]:
        for name, held in first.items():
            assert torch.equal(state[name][: len(held)] if held.ndim else state[name], held), name
    moved = {name for name, held in states[2].items() if not torch.equal(held, states[1][name])}
    path, blocks = find_blocks(saved[-1])
    assert all(any(n.startswith(f"{path}.{i}.") for n in moved) for i in range(len(blocks)))
    return bundle.mllm.language


def read(folder: Path) -> PreTrainedModel:
    """A saved language as a user loads it."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


@torch.no_grad()
def reload(place: Place, held: PreTrainedModel) -> str:
    """Weights and scores of the trained language and of its saved folder are equal, bit by bit."""
    again = read(place.folder / f"run/stages/{NAMES[-1]}/language")
    held.eval()
    if held._can_set_attn_implementation():
        held.set_attn_implementation(again.config._attn_implementation)
    table = held.get_input_embeddings()
    for name, tensor in held.state_dict().items():
        found = again.state_dict()[name]
        if torch.equal(found, tensor):
            continue
        rows = (found != tensor).nonzero()[:, 0].unique().tolist()
        zeroed = rows == [getattr(table, "padding_idx", None)] and not found[rows].any()
        told = "its class empties the padding token's row whenever it loads" if zeroed else ""
        raise AssertionError(told or f"the loaded folder has another {name} (rows {rows[:3]})")
    given = table(torch.arange(3, 40)[None])
    # Copies, as CTRL scales what it is given in place.
    scores = [model(inputs_embeds=given + 0, use_cache=False).logits for model in (held, again)]
    assert torch.equal(*scores), "the loaded folder gives other scores"
    return "equal"


LAYOUTS = {"hf": ("siglip", "merge_mlp"), "llava": ("clip", "mlp")}
"""Exports of whole models that are tried, with the tower and connector that they hold."""


def export(place: Place, layout: str) -> str:
    """The export goes through its own gate: reloaded by transformers, it gives the same tokens,
    visual tokens, logits and answers.
    """
    tower, connector = LAYOUTS[layout]

    def trained() -> Trained:
        return Trained(RunModel(place.bundle(tower, connector)), torch.float32, LINEAGE)

    written(trained, layout, place.folder / layout)
    return layout

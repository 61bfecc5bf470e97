"""Checkpoints as users reported them to loaders and converters: taken apart, or refused for a reason.

Each test names the report that it is made from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_native_parts import image_id, loaded, write_native
from transformers import AutoModelForCausalLM, AutoTokenizer
from written_chat import write_chat

from sailvit.core.errors import ModelError
from sailvit.interop.parts import take_parts

State = dict[str, torch.Tensor]


def change(folder: Path, edit: Callable[[State], Any]) -> None:
    """Edit the tensors of a folder's one file."""
    path = folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    edit(state)
    save_file(state, path, {"format": "pt"})


def set_config(folder: Path, **changes: Any) -> None:
    """Change a folder's config; a name with a double underscore is one inside a half."""
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        half, _, inner = name.partition("__")
        if inner:
            config[half][inner] = value
        else:
            config[half] = value
    (folder / "config.json").write_text(json.dumps(config))


def head_of(out: Path) -> tuple[torch.Tensor, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(out / "language")
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


def test_a_real_head_is_kept_where_a_config_says_tied(tmp_path: Path):
    """vllm #51063: the whole model's config tied the head, so a trained one was thrown away."""
    model = write_native(tmp_path / "model", "internvl")
    set_config(tmp_path / "model", tie_word_embeddings=True)
    taken = take_parts(str(tmp_path / "model"), tmp_path / "parts")
    assert "the head is kept" in taken.notes[0]
    assert torch.equal(head_of(tmp_path / "parts")[1], model.lm_head.weight)


def test_a_head_that_repeats_the_embeddings_is_tied_and_written_once(tmp_path: Path):
    """InternVL's converter unties all languages: the tied ones then hold the same rows twice."""
    written = write_chat(tmp_path / "model", language="qwen2")
    set_config(tmp_path / "model", llm_config__tie_word_embeddings=True)
    table = written.language.get_input_embeddings().weight.detach()
    change(tmp_path / "model", lambda state: state.update({"language_model.lm_head.weight": table}))
    taken = take_parts(str(tmp_path / "model"), tmp_path / "parts")
    assert not taken.left_out
    held = load_file(tmp_path / "parts/language/model.safetensors")
    assert "lm_head.weight" not in held
    embeddings, head = head_of(tmp_path / "parts")
    assert head is embeddings
    assert torch.equal(head, table)


@pytest.mark.parametrize(("whole", "text"), [(False, True), (True, False)])
def test_a_head_that_is_missing_is_the_embeddings_if_either_config_says_so(
    tmp_path: Path, whole: bool, text: bool
):
    """LLaVA-NeXT #315, transformers #43617: tied in one config and not in the other."""
    write_native(tmp_path / "model", "llava-clip")
    change(tmp_path / "model", lambda state: state.pop(head_name(state)))
    set_config(tmp_path / "model", tie_word_embeddings=whole, text_config__tie_word_embeddings=text)
    assert not take_parts(str(tmp_path / "model"), tmp_path / "parts").refused
    embeddings, head = head_of(tmp_path / "parts")
    assert head is embeddings


def test_a_head_that_is_missing_and_not_tied_is_refused(tmp_path: Path):
    """Qwen3-VL-Embedding #89: tie_word_embeddings false, and no lm_head in any file."""
    write_native(tmp_path / "model", "llava-clip")
    change(tmp_path / "model", lambda state: state.pop(head_name(state)))
    set_config(
        tmp_path / "model", tie_word_embeddings=False, text_config__tie_word_embeddings=False
    )
    taken = take_parts(str(tmp_path / "model"), tmp_path / "parts")
    assert list(taken.refused) == ["language"]
    assert "has no output head (lm_head)" in taken.refused["language"]
    assert sorted(taken.folders) == ["connector", "tower"]


def head_name(state: State) -> str:
    return next(name for name in state if name.endswith("lm_head.weight"))


def test_embeddings_longer_than_the_config_says_are_believed(tmp_path: Path):
    """LLAVIDAL #1: 32,009 rows, 32,006 in the config, as tokens were added later."""
    write_chat(tmp_path / "model", language="qwen2")
    set_config(tmp_path / "model", llm_config__vocab_size=300)
    taken = take_parts(str(tmp_path / "model"), tmp_path / "parts")
    assert "says 300 tokens and its embeddings hold 405" in taken.notes[0]
    assert head_of(tmp_path / "parts")[0].shape[0] == 405


def test_a_head_longer_than_the_embeddings_is_refused(tmp_path: Path):
    """transformers #33819: embeddings of tokens that the head cannot score."""
    write_chat(tmp_path / "model", language="qwen2")

    def cut(state: State) -> None:
        state["language_model.lm_head.weight"] = state["language_model.lm_head.weight"][:-8].clone()

    change(tmp_path / "model", cut)
    taken = take_parts(str(tmp_path / "model"), tmp_path / "parts")
    assert "embeddings are [405, 32] and its output head [397, 32]" in taken.refused["language"]


def test_a_tokenizer_shorter_than_the_embeddings_leaves_them_as_they_are(tmp_path: Path):
    """ReconVLA #7: 152,064 rows for 151,646 tokens; cutting them down broke the checkpoint."""
    written = write_chat(tmp_path / "model", language="qwen3")
    assert len(written.tokenizer) < 405
    take_parts(str(tmp_path / "model"), tmp_path / "parts")
    bundle = loaded(tmp_path / "parts")
    table = written.language.get_input_embeddings().weight
    assert torch.equal(bundle.mllm.language.get_input_embeddings().weight, table)


@pytest.mark.parametrize(
    ("held", "said"), [(torch.bfloat16, "float32"), (torch.float32, "bfloat16")]
)
def test_weights_keep_their_type_whatever_the_config_says(
    tmp_path: Path, held: torch.dtype, said: str
):
    """torch_dtype is not what the files hold, and halves the bits."""
    written = write_chat(tmp_path / "model", dtype=held, torch_dtype=said)
    take_parts(str(tmp_path / "model"), tmp_path / "parts")
    for part in ("tower", "connector", "language"):
        state = load_file(tmp_path / "parts" / part / "model.safetensors")
        assert {tensor.dtype for tensor in state.values()} == {held}
        config = json.loads((tmp_path / "parts" / part / "config.json").read_text())
        assert config["dtype"] == str(held).removeprefix("torch.")
    fused = torch.cat(
        [
            load_file(tmp_path / "parts/tower/model.safetensors")[
                f"encoder.layers.0.attention.{part}_proj.weight"
            ]
            for part in "qkv"
        ]
    )
    assert torch.equal(fused, written.vision["trunk.blocks.0.attn.qkv.weight"])


def test_files_of_another_version_than_the_index_are_refused(tmp_path: Path):
    """A download that was resumed after an update: shards and index do not belong together."""
    folder = write_chat(tmp_path / "model").folder
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    index = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(index.values()):
        save_file({n: state[n] for n in names if index[n] == file}, folder / file)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    take_parts(str(folder), tmp_path / "parts")
    path.write_text(json.dumps({"weight_map": {**index, "mlp1.9.weight": index[names[0]]}}))
    with pytest.raises(ModelError, match=r"lists 1 tensors that its files do not hold \(mlp1.9"):
        take_parts(str(folder), tmp_path / "again")
    (folder / index[names[0]]).unlink()
    with pytest.raises(ModelError, match=r"1 of 2 weight files .* are missing"):
        take_parts(str(folder), tmp_path / "again")


def test_without_a_generation_config_answers_end_at_the_end_of_turn(tmp_path: Path):
    """No generation_config.json in the release, and answers that never end."""
    folder = write_chat(tmp_path / "model").folder
    take_parts(str(folder), tmp_path / "parts")
    bundle = loaded(tmp_path / "parts")
    ends = bundle.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert bundle.mllm.language.generation_config.eos_token_id == [ends, 2]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    take_parts(str(folder), tmp_path / "again")
    assert loaded(tmp_path / "again").mllm.language.generation_config.eos_token_id == [2, 7]


def test_an_unknown_pixel_shuffle_refuses_the_connector_alone(tmp_path: Path):
    folder = write_chat(tmp_path / "model", ps_version="v3").folder
    taken = take_parts(str(folder), tmp_path / "parts")
    assert taken.refused == {"connector": "ps_version is 'v3'; expected v1 or v2"}
    assert sorted(taken.folders) == ["language", "tower"]


def test_a_language_of_code_of_its_own_is_refused_and_the_tower_taken(tmp_path: Path):
    """InternVL2-2B and 8B have an InternLM2, which transformers has no class for."""
    folder = write_chat(tmp_path / "model").folder
    set_config(folder, llm_config__model_type="internlm2")
    taken = take_parts(str(folder), tmp_path / "parts")
    assert "it is a internlm2, which transformers has no class for" in taken.refused["language"]
    assert sorted(taken.folders) == ["connector", "tower"]


def test_a_connector_that_reads_the_class_token_is_refused(tmp_path: Path):
    """LLaVA with vision_feature_select_strategy full: the class token is among its visual tokens."""
    write_native(tmp_path / "model", "llava-clip")
    set_config(tmp_path / "model", vision_feature_select_strategy="full")
    taken = take_parts(str(tmp_path / "model"), tmp_path / "parts")
    assert "reads other tokens than the patches" in taken.refused["connector"]


def test_layers_that_the_class_itself_cannot_read_refuse_the_connector(tmp_path: Path):
    """InternVL's config allows a list of layers, and its class fails on one."""
    write_native(tmp_path / "model", "internvl")
    set_config(tmp_path / "model", vision_feature_layer=[-2, -1])
    taken = take_parts(str(tmp_path / "model"), tmp_path / "parts")
    assert list(taken.refused) == ["connector"]


NAMINGS = {
    "transformers 4.40": {"vision_tower.": "vision_tower.vision_model."},
    "transformers 4.52": {
        "vision_tower.": "model.vision_tower.vision_model.",
        "multi_modal_projector.": "model.multi_modal_projector.",
        "language_model.model.": "model.language_model.",
        "language_model.lm_head.": "lm_head.",
    },
}
"""How published files name the parts of LLaVA, by what this version of transformers writes."""


@pytest.mark.parametrize("naming", NAMINGS)
def test_names_of_other_versions_give_the_same_parts(tmp_path: Path, naming: str):
    """LLaVA checkpoints changed their names with transformers 4.52 and again with 5."""
    write_native(tmp_path / "model", "llava-clip")
    take_parts(str(tmp_path / "model"), tmp_path / "parts")

    def rename(state: State) -> None:
        for name in list(state):
            start = next((old for old in NAMINGS[naming] if name.startswith(old)), "")
            new = NAMINGS[naming].get(start, "") + name.removeprefix(start)
            state[new] = state.pop(name)
        # Older versions also saved this buffer.
        state[next(iter(NAMINGS[naming].values())) + "embeddings.position_ids"] = torch.arange(17)

    change(tmp_path / "model", rename)
    taken = take_parts(str(tmp_path / "model"), tmp_path / "again")
    assert not taken.refused
    assert [name.rpartition(".")[2] for name in taken.left_out] == ["position_ids"]
    for part in ("tower", "connector", "language"):
        expected, found = (
            load_file(tmp_path / place / part / "model.safetensors") for place in ("parts", "again")
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_token_of_images_is_found_by_its_old_key(tmp_path: Path):
    """llava-1.5 and aya-vision name its id image_token_index."""
    write_native(tmp_path / "model", "llava-clip")
    path = tmp_path / "model/config.json"
    config = json.loads(path.read_text())
    config.pop("image_token_id", None)
    path.write_text(json.dumps({**config, "image_token_index": image_id()}))
    take_parts(str(tmp_path / "model"), tmp_path / "parts")
    made = json.loads((tmp_path / "parts/model.json").read_text())
    assert made["placeholder"] == "<image>"
    assert loaded(tmp_path / "parts").layout.placeholder_id == image_id()


def test_the_chat_template_of_an_old_processor_is_found(tmp_path: Path):
    """llava-hf's older folders keep it in chat_template.json, where tokenizers do not look."""
    write_native(tmp_path / "model", "llava-clip")
    (tmp_path / "model/chat_template.jinja").unlink()
    (tmp_path / "model/chat_template.json").write_text(json.dumps({"chat_template": "{{ 'hi' }}"}))
    take_parts(str(tmp_path / "model"), tmp_path / "parts")
    assert AutoTokenizer.from_pretrained(tmp_path / "parts/language").chat_template == "{{ 'hi' }}"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"model_type": "llava_llama"}, "is a llava_llama; expected InternVL's or SAIL-VL's chat"),
        ({"quantization_config": {"quant_method": "awq"}}, "its weights are quantised"),
        ({"downsample_ratio": 0.3}, r"downsample_ratio is 0.3; expected 1 / n"),
        (
            {"vision_config__qk_normalization": True, "vision_config__layer_norm_eps": 1e-5},
            "norms queries and keys with layer_norm_eps 1e-05",
        ),
        ({"vision_config__norm_type": "group"}, "has norm_type 'group'; expected layer_norm or"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, edit: dict[str, Any], message: str):
    folder = write_chat(tmp_path / "model", tower="internvit").folder
    set_config(folder, **edit)
    with pytest.raises(ModelError, match=message):
        take_parts(str(folder), tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    assert not (tmp_path / "parts.part").exists()

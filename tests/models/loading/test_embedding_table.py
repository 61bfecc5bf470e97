"""The embedding table of a language, read from its file alone."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config

from sailvit.core.errors import ModelError
from sailvit.core.memory import PeakMemory
from sailvit.models.loading.embedding_table import EmbeddingTable, embed_texts, open_table
from sailvit.models.measures.rows import blocks
from tiny_parts import LANGUAGES, save_language


@pytest.mark.parametrize("name", LANGUAGES)
def test_rows_are_those_of_the_model(parts, name):
    table, tokenizer = open_table(parts.language(name))
    model = AutoModelForCausalLM.from_pretrained(parts.language(name))
    weight = model.get_input_embeddings().weight.detach().numpy()
    words = [n for n in range(len(tokenizer)) if n not in tokenizer.all_special_ids]
    assert len(table) == len(words) < len(weight)
    assert table.width == weight.shape[1]
    assert np.array_equal(table.read(0, len(table)), weight[words])
    assert np.array_equal(table.read(7, 19), weight[words[7:19]])


def test_names_without_the_prefix_of_the_whole_model_are_found(tmp_path):
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=405, n_positions=64)
    save_language(config, tmp_path)
    file = tmp_path / "model.safetensors"
    state = {name.removeprefix("transformer."): value for name, value in load_file(file).items()}
    assert "wte.weight" in state
    save_file(state, file, metadata={"format": "pt"})
    table, _ = open_table(str(tmp_path))
    assert torch.equal(torch.from_numpy(table.take(np.arange(9))), state["wte.weight"][:9])


def test_a_text_is_the_mean_of_its_tokens(parts):
    table, tokenizer = open_table(parts.language("llama"))
    texts = ["red circle", "", "red red"]
    found = embed_texts(table, tokenizer, texts)
    ids = np.array(tokenizer("red circle", add_special_tokens=False)["input_ids"])
    rows = {token: table.take(np.array([token]))[0] for token in ids}
    assert found[0] == pytest.approx(np.mean([rows[token] for token in ids], axis=0), abs=1e-6)
    assert not found[1].any()


def test_files_without_the_table_are_refused(tmp_path):
    save_language(LANGUAGES["llama"], tmp_path)
    file = tmp_path / "model.safetensors"
    state = {n: v for n, v in load_file(file).items() if "embed_tokens" not in n}
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="no tensor of the input embeddings"):
        open_table(str(tmp_path))


def test_a_large_table_is_never_whole_in_memory(tmp_path):
    rows, width, file = 150_000, 1024, tmp_path / "large.safetensors"
    save_file({"table": torch.ones(rows, width, dtype=torch.bfloat16)}, file)
    table = EmbeddingTable(str(file), "table", np.arange(rows))
    peak = PeakMemory(torch.device("cpu"))
    peak.restart()
    before = peak.bytes()
    total = sum(float(block.sum()) for block in blocks(table))
    assert total == rows * width
    # In the file it takes 293 MB, in float32 586 MB.
    assert (peak.bytes() - before) / 2**20 < 200

"""`sailvit parts`: what it writes, what it says, and the memory that it takes."""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from interop_table import BEGIN, END
from safetensors.torch import load_file, save_file
from test_chat_parts import CASES
from test_native_parts import CONFIGS, NEAR, TEXT, image_id, write_native
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, Mistral3Config
from typer.testing import CliRunner
from written_chat import write_chat

from sailvit.cli.app import app
from sailvit.core.errors import ModelError, RunError
from sailvit.interop import parts as module
from sailvit.interop.export.export import LAYOUTS
from sailvit.interop.parts import take_parts
from sailvit.interop.reading.stored import read_names
from sailvit.models.structure.connector import read_connector


def memory(name: str) -> int:
    """Bytes of this process's memory now (VmRSS), or at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def test_the_command_says_what_it_took_and_what_not(tmp_path: Path):
    folder = write_chat(tmp_path / "model", template="phi3-chat", ps_version="v3").folder
    out = tmp_path / "parts"
    result = CliRunner().invoke(app, ["parts", str(folder), "--out", str(out)])
    assert result.exit_code == 0, result.exception
    lines = result.output.splitlines()
    assert lines[0] == f"{folder} is in InternVL's chat layout."
    assert lines[1:3] == [f"  tower: {out}/tower", f"  language: {out}/language"]
    assert lines[3] == "  connector: not taken out, as ps_version is 'v3'; expected v1 or v2."
    assert lines[4].startswith("Note: its conversation format 'phi3-chat' is not known here")
    assert lines[5] == f"The model section of a recipe with these parts is {out}/model.yaml."


def test_a_hub_id_is_downloaded_without_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_chat(tmp_path / "model").folder
    asked: dict[str, Any] = {}

    def downloaded(source: str, allow_patterns: list[str]) -> str:
        asked[source] = allow_patterns
        return str(folder)

    monkeypatch.setattr(module, "snapshot_download", downloaded)
    assert not take_parts("someone/model", tmp_path / "parts").refused
    assert not any(fnmatch("modeling_sailvl.py", each) for each in asked["someone/model"])
    with pytest.raises(ModelError, match="there is no folder /no/such; name one"):
        take_parts("/no/such", tmp_path / "other")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path):
    folder = write_chat(tmp_path / "model").folder
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is there already; name a new folder"):
        take_parts(str(folder), tmp_path / "mine")
    assert (tmp_path / "mine/notes.txt").read_text() == "mine"


def test_parts_hold_every_bit_of_the_checkpoint_in_shards(tmp_path: Path):
    written = write_chat(tmp_path / "model", tower="internvit", language="qwen2")
    take_parts(str(written.folder), tmp_path / "parts", shard=20_000)
    assert (tmp_path / "parts/language/model.safetensors.index.json").is_file()
    names = read_names(tmp_path / "parts/language")
    assert len({stored.path for stored in names.values()}) > 2
    expected = written.language.state_dict()
    assert names.keys() == expected.keys()
    assert all(torch.equal(stored.read(), expected[name]) for name, stored in names.items())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "parts/language")
    assert all(torch.equal(again.state_dict()[name], expected[name]) for name in expected)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_holds_less_than_one_and_a_half_shards(tmp_path: Path):
    """Four shards of 16 MB, the largest tensor half of one; 0.49 of a shard was seen."""
    small = write_chat(tmp_path / "small", language="qwen2")
    large = write_chat(tmp_path / "large", language="qwen2")
    shard = 16_000_000
    state = load_file(large.folder / "model.safetensors")
    start = "language_model.model.layers."
    for name in [name for name in state if ".mlp." in name and name.startswith(start)]:
        shape = (62_500, 32) if "down" not in name else (32, 62_500)
        state[name] = torch.zeros(shape)
    (large.folder / "model.safetensors").unlink()
    places: dict[str, str] = {}
    for number in range(4):
        some = {name: state[name] for name in sorted(state)[number::4]}
        places |= dict.fromkeys(some, f"model-{number}.safetensors")
        save_file(some, large.folder / f"model-{number}.safetensors")
    index = large.folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    config = json.loads((large.folder / "config.json").read_text())
    config["llm_config"]["intermediate_size"] = 62_500
    (large.folder / "config.json").write_text(json.dumps(config))
    take_parts(str(small.folder), tmp_path / "warm", shard=shard)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    take_parts(str(large.folder), tmp_path / "taken", shard=shard)
    assert memory("VmHWM") - before < 1.5 * shard
    sizes = [path.stat().st_size for path in (tmp_path / "taken/language").glob("*.safetensors")]
    assert max(sizes) < 1.01 * shard


def test_experts_are_taken_as_the_files_hold_them(tmp_path: Path):
    """Files hold one matrix per expert, and transformers joins them while it loads."""
    written = write_chat(tmp_path / "model", language="qwen3_moe")
    assert not take_parts(str(written.folder), tmp_path / "parts").refused
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "parts/language").state_dict()
    expected = written.language.state_dict()
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_mistrals_connector_is_one_of_ours(tmp_path: Path):
    torch.manual_seed(5)
    pixtral = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    pixtral |= {"num_attention_heads": 4, "head_dim": 8, "image_size": 32, "patch_size": 8}
    config = Mistral3Config(
        vision_config={"model_type": "pixtral", **pixtral},
        text_config=TEXT,
        image_token_id=image_id(),
        spatial_merge_size=2,
    )
    model = AutoModelForImageTextToText.from_config(config).eval()
    write_native(tmp_path / "model", model)
    assert not take_parts(str(tmp_path / "model"), tmp_path / "parts").refused
    features = torch.randn(1, 16, 32)
    theirs = model.model.multi_modal_projector(features[0], torch.tensor([[32, 32]]))
    torch.testing.assert_close(read_connector(tmp_path / "parts/connector")(features)[0], theirs)


def test_the_table_of_the_docs_has_every_case_and_no_error_above_the_limit():
    page = (Path(__file__).parents[2] / "docs/interop.md").read_text(encoding="utf-8")
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert sum(row[1].startswith("in") for row in rows) == 1 + len(CASES) + len(CONFIGS)
    assert {row[0].strip("`") for row in rows if row[1] == "out"} == set(LAYOUTS)
    errors = [float(row[-1]) for row in rows]
    assert max(errors) < NEAR

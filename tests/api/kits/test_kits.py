"""Our models in kits that stand in for VLMEvalKit and lmms-eval, by the same contracts."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import sailvit
from sailvit.api.kits import vlmevalkit
from sailvit.core.errors import DataError
from tiny_parts import Parts, picture, save_model

VLMEVAL = {
    "__init__.py": "",
    "config.py": "supported_VLM = {}",
    "vlm/__init__.py": "",
    "vlm/base.py": """
class BaseModel:
    def __init__(self):
        self.dump_image_func = None
""",
    "run.py": """
import json, sys
from vlmeval import vlm
from vlmeval.config import supported_VLM

def main():
    words = sys.argv[1:]
    out, image = words[words.index("--work-dir") + 1], words[words.index("--data") + 1]
    made = supported_VLM[words[words.index("--model") + 1]]()
    said = made.generate(
        [{"type": "image", "value": image}, {"type": "text", "value": "what is it?"}]
    )
    found = [said, made.INTERLEAVE, type(made) is vlm.Sailvit, words]
    with open(out, "w") as file:
        json.dump(found, file)
""",
}
LMMS = {
    "__init__.py": "",
    "api/__init__.py": "",
    "api/model.py": """
class Hook:
    def __init__(self):
        self.kept = []

    def add_partial(self, kind, args, answer):
        self.kept.append((kind, args, answer))

class lmms:
    is_simple = True

    def __init__(self):
        self.cache_hook = Hook()
        self.task_dict = {}
""",
    "models/__init__.py": "",
    "models/registry_v2.py": """
from dataclasses import dataclass

@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str = None
    chat_class_path: str = None
    aliases: tuple = ()
""",
}


@pytest.fixture(scope="module")
def model(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(parts.build(), tmp_path_factory.mktemp("saved") / "mine")


def stand_in(files: dict[str, str], name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    for place, text in files.items():
        path = folder / name / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    patch.syspath_prepend(folder)
    for known in [each for each in sys.modules if each.split(".")[0] == name]:
        patch.delitem(sys.modules, known)


def test_vlmevalkits_own_run_gets_the_model_and_the_other_words(model, tmp_path, monkeypatch):
    # The kit calls `generate`, which hands over to `generate_inner` of the model.
    base = VLMEVAL["vlm/base.py"] + (
        "    def generate(self, message, dataset=None):\n"
        "        return self.generate_inner(message, dataset)\n"
    )
    stand_in({**VLMEVAL, "vlm/base.py": base}, "vlmeval", tmp_path, monkeypatch)
    image = tmp_path / "a.png"
    Image.fromarray(np.asarray(picture(3))).save(image)
    monkeypatch.setattr(sys, "argv", ["x"])
    words = ["--data", str(image), "--work-dir", str(tmp_path / "out.json")]
    vlmevalkit.main([str(model), *words])
    said, interleaves, is_ours, given = json.loads((tmp_path / "out.json").read_text())
    assert said == sailvit.load_run(model).generate(image, "what is it?")
    assert interleaves
    assert is_ours
    assert given == ["--model", "mine", *words]


def test_without_the_kit_or_a_run_it_says_what_to_do(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "vlmeval", None)
    monkeypatch.setattr(vlmevalkit, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="install ms-vlmeval"):
        vlmevalkit.main([str(model), "--data", "MMStar"])
    with pytest.raises(DataError, match="name a run first"):
        vlmevalkit.main(["--data", "MMStar"])


@pytest.fixture
def lmms_eval(tmp_path, monkeypatch):
    stand_in(LMMS, "lmms_eval", tmp_path, monkeypatch)
    monkeypatch.delitem(sys.modules, "sailvit.api.kits.lmms_eval", raising=False)
    return importlib.import_module("sailvit.api.kits.lmms_eval")


def request(number: int, text: str, **given) -> SimpleNamespace:
    def messages(doc: dict) -> list[dict]:
        pieces = [{"type": "image", "url": doc["image"]}, {"type": "text", "text": doc["text"]}]
        return [{"role": "user", "content": pieces}]

    return SimpleNamespace(args=(text, messages, given, number, "task", "test"))


def test_the_entry_point_names_a_chat_model(lmms_eval):
    text = (Path(sailvit.__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    group = text.partition('[project.entry-points."lmms_eval.models"]')[2]
    module, name = re.search(r'^sailvit = "([\w.]+):(\w+)"', group, re.MULTILINE).groups()
    made = getattr(importlib.import_module(module), name)()
    assert made.model_id == "sailvit"
    assert made.simple_class_path is None
    place, _, cls = made.chat_class_path.rpartition(".")
    found = getattr(importlib.import_module(place), cls)
    assert issubclass(found, sys.modules["lmms_eval.api.model"].lmms)
    assert found.is_simple is False


def test_lmms_eval_gets_answers_in_the_order_of_its_requests(lmms_eval, model):
    # As the kit makes it: strings, and a limit that every model is given.
    made = lmms_eval.SailvitChat(pretrained=str(model), batch_size="2", max_batch_size=None)
    docs = [
        {"image": Image.fromarray(np.asarray(picture(n))), "text": f"what is {n}?"}
        for n in range(5)
    ]
    made.task_dict = {"task": {"test": docs}}
    given = [{"max_new_tokens": 4 + n % 2, "until": ["\n\n"], "temperature": 0} for n in range(5)]
    requests = [request(n, docs[n]["text"], **given[n]) for n in range(5)]
    found = made.generate_until(requests)
    run = sailvit.load_run(model)
    assert found == [
        run.generate(doc["image"], doc["text"], max_new_tokens=4 + n % 2)
        for n, doc in enumerate(docs)
    ]
    kept = {args[0]: answer for _, args, answer in made.cache_hook.kept}
    assert kept == dict(zip((doc["text"] for doc in docs), found, strict=True))


def test_an_answer_ends_before_the_first_text_that_its_task_stops_at(lmms_eval, model):
    made = lmms_eval.SailvitChat(pretrained=str(model))
    doc = {"image": Image.fromarray(np.asarray(picture(1))), "text": "what is it?"}
    made.task_dict = {"task": {"test": [doc]}}
    whole = sailvit.load_run(model).generate(doc["image"], doc["text"], max_new_tokens=8)
    assert len(whole) > 4
    for until in (whole[3], ["", "no such text", whole[3]]):
        asked = request(0, doc["text"], max_new_tokens=8, until=until)
        assert made.generate_until([asked]) == [whole.partition(whole[3])[0].strip()]


def test_lmms_eval_is_told_what_cannot_be_asked(lmms_eval, model):
    with pytest.raises(DataError, match="max_patches; expected pretrained"):
        lmms_eval.SailvitChat(pretrained=str(model), max_patches="6")
    made = lmms_eval.SailvitChat(pretrained=str(model))
    with pytest.raises(DataError, match="generates answers"):
        made.loglikelihood([1])
    with pytest.raises(DataError, match="several rounds"):
        made.generate_until_multi_round([1, 2])

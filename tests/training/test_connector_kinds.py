"""Every kind of connector trains through three stages, is proved, saved, and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from sailvit.api.models import load_run
from sailvit.core.recipe import ConnectorKind
from sailvit.models.structure.connector import CONNECTORS
from sailvit.preflight.plan import plan
from sailvit.training import trainer as module
from tiny_parts import Parts, picture
from tiny_runs import lines, recipe, three_stages, train, write_data


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("kind", [kind for kind in get_args(ConnectorKind) if kind != "merge_mlp"])
def test_it_trains_through_three_stages(
    parts: Parts,
    sources: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: ConnectorKind,
):
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)
    image = {"wrap": ["<img>", "</img>"], "newline": True}
    config = parts.config().model_dump() | {"connector": {"kind": kind}, "image": image}
    short = [{**each, "length": {"samples": 8}} for each in three_stages()]
    made = recipe(parts, sources, short, model=config)
    planned = plan(made)
    assert not planned.problems
    before = train(made, tmp_path).mllm.connector
    assert isinstance(before, CONNECTORS[kind])
    proofs = lines(tmp_path / "proofs.jsonl")
    assert len(proofs) == 6
    assert all(line["ok"] for line in proofs)
    again = load_run(tmp_path / "stages" / "02-world")
    assert again.connector.config.to_diff_dict() | {"_name_or_path": ""} == (
        before.config.to_diff_dict() | {"_name_or_path": ""}
    )
    state = again.connector.state_dict()
    assert all((state[name] == tensor).all() for name, tensor in before.state_dict().items())
    assert isinstance(again.generate(picture(1), "what colour?", max_new_tokens=3), str)

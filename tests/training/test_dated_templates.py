"""A chat template that writes the date writes the same one in all of a run."""

from __future__ import annotations

import datetime
import io
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from small_tokenizers import CHATML, byte_tokenizer, layout_for
from test_trainer import Kill, measured
from transformers import AutoTokenizer

from sailvit.cli.data.opening import processor_of
from sailvit.core.errors import DataError, InterruptedRunError
from sailvit.core.recipe import Recipe, SourceConfig
from sailvit.core.records import Record, Turn
from sailvit.core.run import read_json
from sailvit.data.lengths.fingerprints import tokenizer_fingerprint
from sailvit.data.lengths.measuring import cost_basis, measure
from sailvit.data.processing.processor import Processor
from sailvit.data.processing.template_source import fix_date
from sailvit.data.processing.text import TextEncoder
from sailvit.data.sources import open_source
from sailvit.dataprep.prepare.indexing import index, index_config
from sailvit.preflight.plan import plan
from sailvit.recipes.loader import dump_recipe
from sailvit.training import trainer as module
from tiny_parts import Parts
from tiny_runs import recipe, stage, train, weights, write_data

DATED = "{{ strftime_now('%d %b %Y') }}. " + CHATML
FIRST, LATER = datetime.date(2026, 5, 1), datetime.date(2031, 12, 24)
TALK = Record("r", (Turn("user", "what?"), Turn("assistant", "red")))


@pytest.fixture(autouse=True)
def _known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "device_peak", lambda *_: 1e12)


def on(monkeypatch: pytest.MonkeyPatch, day: datetime.date) -> None:
    """Let it be this day."""

    class Day(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return day

    monkeypatch.setattr("sailvit.core.recipe.model.datetime.date", Day)


@pytest.fixture
def made(parts: Parts, tmp_path: Path) -> Recipe:
    language = tmp_path / "language"
    shutil.copytree(parts.language("llama"), language)
    tokenizer = AutoTokenizer.from_pretrained(language)
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(language)
    sources = write_data(tmp_path / "data")
    model = parts.config().model_copy(update={"language": str(language)}).model_dump()
    return recipe(parts, sources, [stage(train={"connector": 1.0, "language": 1.0})], model=model)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_resumed_on_another_day_goes_on_with_its_first_date(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    on(monkeypatch, FIRST)
    expected = weights(train(made, tmp_path / "whole"))
    with pytest.raises(InterruptedRunError):
        train(made, tmp_path / "cut", Kill(0, 2))
    on(monkeypatch, LATER)
    assert same(weights(train(made, tmp_path / "cut", resume=True)), expected)
    assert measured(tmp_path / "cut") == measured(tmp_path / "whole")
    assert read_json(tmp_path / "cut" / "manifest.json")["chat_date"] == "2026-05-01"
    another = train(made, tmp_path / "another")
    assert not same(weights(another), expected)
    assert another.day == LATER
    pinned = made.model_copy(update={"model": made.model.model_copy(update={"chat_date": FIRST})})
    assert same(weights(train(pinned, tmp_path / "pinned")), expected)


def test_a_recipe_in_a_run_folder_is_read_with_the_run_s_date(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    on(monkeypatch, FIRST)
    train(made, tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text(dump_recipe(made))
    (tmp_path / "other.yaml").write_text(dump_recipe(made))
    on(monkeypatch, LATER)
    inside, outside = (
        processor_of(path) for path in (tmp_path / "run" / "recipe.yaml", tmp_path / "other.yaml")
    )
    assert inside.encoder.render(TALK)[0].startswith("01 May 2026.")
    assert outside.encoder.render(TALK)[0].startswith("24 Dec 2031.")


def test_run_and_plan_say_which_date_is_written(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    on(monkeypatch, FIRST)
    assert any("always 01 May 2026" in remark for remark in plan(made).remarks)


def test_a_template_is_given_the_date_as_transformers_would():
    tokenizer = byte_tokenizer(DATED)
    turns = [{"role": turn.role, "content": turn.text} for turn in TALK.turns]
    today = TextEncoder(tokenizer, layout_for(tokenizer)).render(TALK)[0]
    assert today == tokenizer.apply_chat_template(turns, tokenize=False)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("'%d %b %Y'", "01 May 2026"),
        ('"%A, %-d.%-m.%y (100%%)"', "Friday, 1.5.26 (100%)"),
        ("form", "2026/05"),
        ("'%H:%M'", "00:00"),
    ],
)
def test_every_form_of_a_date_is_written(form: str, expected: str):
    source = "\n{% set form = '%Y/%m' %}{% if strftime_now is defined %}{{ strftime_now(FORM) }}{% endif %}"
    tokenizer = byte_tokenizer(fix_date(source.replace("FORM", form), FIRST))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == (
        f"\n{expected}"
    )


def test_fingerprints_cover_what_is_written():
    dated, plain = byte_tokenizer(DATED), byte_tokenizer(CHATML)
    yearly = byte_tokenizer("{{ strftime_now('%Y') }} " + CHATML)
    hidden = byte_tokenizer("{% set f = '%Y' %}{{ strftime_now(f) }} " + CHATML)
    near = datetime.date(2026, 5, 2)
    assert tokenizer_fingerprint(dated, FIRST) != tokenizer_fingerprint(dated, near)
    assert tokenizer_fingerprint(yearly, FIRST) == tokenizer_fingerprint(yearly, near)
    assert tokenizer_fingerprint(hidden, FIRST) != tokenizer_fingerprint(hidden, near)
    assert tokenizer_fingerprint(plain, FIRST) == tokenizer_fingerprint(plain, LATER)
    several = byte_tokenizer({"default": CHATML, "tool_use": DATED})
    assert tokenizer_fingerprint(several, FIRST) == tokenizer_fingerprint(plain, LATER)
    basis = {cost_basis(Processor(dated, layout_for(dated), 64, day=day)) for day in (FIRST, near)}
    assert len(basis) == 2


def test_counts_of_another_date_are_refused_by_naming_it(tmp_path: Path):

    folder = tmp_path / "tars"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        row = (
            b'{"conversations": [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]}'
        )
        member = tarfile.TarInfo("0.json")
        member.size = len(row)
        tar.addfile(member, io.BytesIO(row))
    tokenizer = byte_tokenizer(DATED)
    builders = [Processor(tokenizer, layout_for(tokenizer), 64, day=day) for day in (FIRST, LATER)]
    index(index_config(folder), processor=builders[0])

    source = open_source("x", SourceConfig(format="indexed", path=str(folder)), Path())
    assert measure("x", source, builders[0]).tokens.min() > 0
    with pytest.raises(DataError, match=r"model\.chat_date 2026-05-01"):
        measure("x", source, builders[1])

"""A new format is one module and one name in FORMATS: a toy one is added by just that, and packed for training."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from small_tokenizers import CHATML, byte_tokenizer

from sailvit.core.layout import VisualLayout
from sailvit.core.recipe import SourceConfig
from sailvit.data.lengths.measuring import measure
from sailvit.data.loading.loader import Loader
from sailvit.data.processing.processor import Processor
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.data.sources import FORMATS, open_source

MODULE = '''
"""Sums: a text file with one sum per line, such as `2 + 3 = 5`."""

from hashlib import blake2b
from pathlib import Path

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record, Turn
from sailvit.data.rows.row import RowOptions, read_options


class SumsSource:
    """Sums as records of one question and one answer."""

    def __init__(self, path: Path, options: RowOptions) -> None:
        self._lines = path.read_text().splitlines()[: options.limit]
        self.fingerprint = blake2b("".join(self._lines).encode(), digest_size=8).hexdigest()

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, position: int) -> Record:
        question, mark, answer = self._lines[position].partition(" = ")
        if not mark:
            raise DataError(f"line {position + 1} has no answer; expected `sum = answer`", kind="text")
        return Record(str(position), (Turn("user", question), Turn("assistant", answer)), kind="sums")


def open_sums(config: SourceConfig, folder: Path) -> SumsSource:
    """The sums in the file that `path` names."""
    return SumsSource(folder / config.path, read_options(RowOptions, config))
'''


def added(path: Path):
    """The module, as an import of it would give it."""
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("sums", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_toy_format_feeds_training(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "sums", added(tmp_path / "sums.py").open_sums)
    sums = [f"{a} + {b} = {a + b}" for a in range(5) for b in range(5)]
    (tmp_path / "sums.txt").write_text("\n".join([*sums, "broken"]))
    source = open_source("sums", SourceConfig(format="sums", path="sums.txt"), tmp_path)

    tokenizer = byte_tokenizer(CHATML)
    image = "<|image_pad|>"
    processor = Processor(
        tokenizer, VisualLayout(8, 2, tokenizer.convert_tokens_to_ids(image), image), 128
    )
    loader_config = LoaderConfig(
        name="s", seed=0, shares={"sums": 1.0}, sequence=128, global_batch=2, samples=len(source)
    )
    bad = []
    loader = Loader(
        {"sums": source},
        {"sums": measure("sums", source, processor)},
        processor,
        loader_config,
        report=bad.append,
    )
    batches = [batch for step in loader for batch in step.batches]

    assert sorted(name for batch in batches for name in batch.sample_ids) == sorted(
        f"sums/{n}" for n in range(25)
    )
    assert [(record.position, record.kind) for record in bad] == [(25, "text")]
    assert all(batch.answer_tokens > 0 for batch in batches)

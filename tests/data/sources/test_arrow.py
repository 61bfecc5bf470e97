"""Folders of `save_to_disk`: Arrow streams read by record batch, and refusals."""

from __future__ import annotations

import json
import pickle

import pyarrow as pa
import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.data.sources import open_source


def opened(folder, path="set", **options):
    return open_source("src", SourceConfig(format="arrow", path=path, options=options), folder)


def saved(folder, files, rows_per_batch=2, **state):
    """The files that save_to_disk writes: Arrow streams, and a state that lists them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{number:05}-of-{len(files):05}.arrow" for number in range(len(files))]
    for name, columns in zip(names, files, strict=True):
        table = pa.table(columns)
        with pa.ipc.new_stream(str(folder / name), table.schema) as stream:
            stream.write_table(table, max_chunksize=rows_per_batch)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "f", **state}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def columns(texts):
    return {
        "image": [{"bytes": text.encode(), "path": None} for text in texts],
        "other": [1] * len(texts),
        "text": texts,
    }


def test_rows_of_all_files_and_batches_in_any_order(tmp_path):
    expected = list("abcdefghijk")
    saved(tmp_path / "set", [columns(expected[:5]), columns(expected[5:])])
    source = opened(tmp_path)
    order = [10, 0, 5, 4, 9, 1, 6, 2, 8, 3, 7]
    assert len(source) == 11
    assert [source[n].turns[1].text for n in order] == [expected[n] for n in order]
    assert source[7].images == (b"h",)
    assert (source[7].id, source[7].kind) == ("7", "caption")
    assert len(opened(tmp_path, limit=6)) == 6
    assert pickle.loads(pickle.dumps(source))[10].images == (b"k",)


def test_image_paths_start_at_the_folder(tmp_path):
    saved(tmp_path / "set", [{"image": [{"bytes": None, "path": "a.png"}], "text": ["a"]}])
    assert opened(tmp_path)[0].images == (tmp_path / "set/a.png",)


def test_the_fingerprint_follows_state_and_options(tmp_path):
    saved(tmp_path / "set", [columns(["a"])])
    first = opened(tmp_path).fingerprint
    assert opened(tmp_path).fingerprint == first
    assert opened(tmp_path, limit=1).fingerprint != first
    saved(tmp_path / "set", [columns(["a"])], _fingerprint="g")
    assert opened(tmp_path).fingerprint != first


def test_a_set_of_splits_asks_for_one(tmp_path):
    for split in ("train", "test"):
        saved(tmp_path / "set" / split, [columns(["a"])])
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match="holds the splits test, train; let `path` name"):
        opened(tmp_path)
    assert len(opened(tmp_path, "set/train")) == 1


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, r"after flatten_indices\(\)"),
        ({"_data_files": [{"filename": "../x.arrow"}]}, "leads out of"),
        (
            {"_data_files": [{"filename": "gone.arrow"}]},
            r"gone.arrow: no readable Arrow stream .*no record is left",
        ),
        ({"_data_files": [{}]}, "no usable state.json"),
        ({"_data_files": 3}, "no usable state.json"),
    ],
)
def test_states_that_are_refused(tmp_path, state, message):
    saved(tmp_path / "set", [columns(["a"])], **state)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_folders_that_are_something_else(tmp_path):
    with pytest.raises(DataError, match="no `path`"):
        opened(tmp_path, None)
    with pytest.raises(DataError, match=r"no usable state\.json"):
        opened(tmp_path)
    saved(tmp_path / "set", [{"label": [3]}])
    with pytest.raises(DataError, match="has columns label; expected one of"):
        opened(tmp_path)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_cut_streams_are_noticed_at_opening_and_later(tmp_path, kept):
    file = saved(tmp_path / "set", [columns(["x" * 500] * 9)]) / "data-00000-of-00001.arrow"
    source, content = opened(tmp_path), file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=r"arrow is damaged at byte \d+"):
        source[8]
    prefix = opened(tmp_path) if kept > 0.2 else whole_refused(tmp_path)
    assert prefix is None or (
        len(prefix) < 9 and "no readable Arrow stream from byte" in prefix.faults[0].reason
    )


def whole_refused(folder):
    with pytest.raises(DataError, match="no record is left"):
        opened(folder)


def test_a_missing_or_cut_file_costs_only_itself(tmp_path):
    folder = saved(tmp_path / "set", [columns([f"{n}a", f"{n}b"]) for n in range(3)])
    whole = opened(tmp_path)
    assert (whole.shards, whole.faults) == ((2, 2, 2), ())
    assert whole.place(3) == (str(folder / "data-00001-of-00003.arrow"), 1)
    (folder / "data-00001-of-00003.arrow").unlink()
    source = opened(tmp_path)
    assert [source[n].turns[1].text for n in range(len(source))] == ["0a", "0b", "2a", "2b"]
    assert (source.shards, [fault.kind for fault in source.faults]) == (
        (2, 0, 2),
        ["damaged shard"],
    )
    assert source.fingerprint != whole.fingerprint
    assert opened(tmp_path, limit=3).shards == (2, 0, 1)


def test_a_folder_that_datasets_wrote(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {
        "image": [{"bytes": f"{n}".encode(), "path": None} for n in range(25)],
        "text": [f"t{n}" for n in range(25)],
    }
    table = datasets.table.InMemoryTable(pa.table(rows, schema=features.arrow_schema))
    # A fingerprint is given because computing one pickles pyarrow, which fails with some pairs of versions.
    written = datasets.Dataset(table, datasets.DatasetInfo(features=features), fingerprint="f")
    written.save_to_disk(str(tmp_path / "set"), num_shards=3)
    source = opened(tmp_path)
    assert [(source[n].images[0], source[n].turns[1].text) for n in (24, 0, 12)] == [
        (b"24", "t24"),
        (b"0", "t0"),
        (b"12", "t12"),
    ]


def test_no_flipped_byte_ends_the_process(tmp_path):
    file = saved(tmp_path / "set", [columns(["a", "b"])]) / "data-00000-of-00001.arrow"
    content = file.read_bytes()
    refused = 0
    for at in range(0, len(content), 3):
        file.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            source = opened(tmp_path)
            for position in range(len(source)):
                source[position]
        except DataError:
            refused += 1
    assert refused > len(content) // 30

"""Files kept open: what is read, how many are open, and that copies and forks start without them."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sailvit.data.shards.open_files import OpenFiles


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / str(number) for number in range(10)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100 + b"end")
    return [str(path) for path in paths]


def open_now() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_stretches_are_read_where_they_lie_and_end_with_the_file(files):
    opened = OpenFiles()
    assert opened.read(files[3], 98, 4) == b"\3\3en"
    assert opened.read(files[3], 100, 50) == b"end"
    assert opened.read(files[3], 500, 50) == b""


def test_only_so_many_are_open_and_all_are_closed_in_the_end(files):
    before, opened = open_now(), OpenFiles(4)
    for turn in range(30):
        assert opened.read(files[turn % 10], 0, 1) == bytes([turn % 10])
        assert open_now() - before <= 4
    del opened
    assert open_now() == before


def test_a_missing_file_is_an_error_each_time_and_found_once_it_is_there(tmp_path):
    opened, path = OpenFiles(), tmp_path / "late"
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            opened.read(str(path), 0, 1)
    path.write_bytes(b"here")
    assert opened.read(str(path), 0, 4) == b"here"


def test_a_copy_opens_files_of_its_own(files):
    opened = OpenFiles(2)
    opened.read(files[0], 0, 1)
    before = open_now()
    copy = pickle.loads(pickle.dumps(opened))
    assert open_now() == before
    assert copy.read(files[5], 0, 1) == b"\5"


def test_threads_that_push_each_others_files_out_read_the_right_bytes(files):
    opened = OpenFiles(2)

    def reads(seed: int) -> bool:
        return all(
            opened.read(files[(seed * 7 + turn) % 10], 5, 3) == bytes([(seed * 7 + turn) % 10]) * 3
            for turn in range(500)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(reads, range(4)))

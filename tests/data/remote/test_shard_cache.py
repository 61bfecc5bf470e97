"""Shards over HTTP: what arrives, what is asked for, and what is said when it does not come."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sailvit.core.errors import DataError
from sailvit.data.remote.cache import ShardCache
from sailvit.data.remote.requests import Access
from sailvit.data.remote.roots import RemoteFile

FETCH = """
import sys
from pathlib import Path
from sailvit.data.remote.cache import ShardCache
cache = ShardCache(sys.argv[1], Path(sys.argv[2]), 10**9)
print(cache.path("a.tar"))
"""


def is_running(process: str) -> bool:
    """Whether it exists, and not only because nobody has asked how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def files_in(cache_folder: Path) -> set[str]:
    return {path.name for path in cache_folder.rglob("*") if path.is_file()}


def error_of(cache: ShardCache, name: str = "a.tar", **expected: int) -> DataError:
    with pytest.raises(DataError) as caught:
        cache.path(name, **expected)
    return caught.value


def test_a_shard_is_fetched_once_and_kept(server, open_cache, tmp_path):
    cache = open_cache()
    first, second = cache.path("train/a.tar"), cache.path("train/a.tar")
    assert first == second
    assert first.read_bytes() == server.body
    assert first.name == "a.tar"
    assert open_cache().path("train/a.tar") == first
    assert server.asked == [("/train/a.tar", None)]
    assert files_in(tmp_path / "cache") == {"a.tar"}


def test_size_and_checksum_are_compared(server, open_cache):
    path = open_cache().path("a.tar", size=len(server.body), crc32=zlib.crc32(server.body))
    assert path.read_bytes() == server.body


def test_another_size_is_refused_before_the_body_is_read(server, open_cache, tmp_path):
    error = error_of(open_cache(), size=7)
    assert error.kind == "changed shard"
    assert "it has 512,000 bytes, expected 7" in str(error)
    assert len(server.asked) == 1
    assert files_in(tmp_path / "cache") == set()


def test_a_bit_flipped_on_the_way_is_fetched_again(server, open_cache):
    server.plan("a.tar", "flipped", "fine")
    assert open_cache().path("a.tar", crc32=zlib.crc32(server.body)).read_bytes() == server.body
    assert len(server.asked) == 2


def test_the_same_wrong_checksum_twice_is_a_changed_shard(server, open_cache, tmp_path):
    server.plan("a.tar", "flipped")
    error = error_of(open_cache(tries=5), crc32=zlib.crc32(server.body))
    assert error.kind == "changed shard"
    assert f"expected {zlib.crc32(server.body):08x}" in str(error)
    assert len(server.asked) == 2
    assert files_in(tmp_path / "cache") == set()


def test_a_replaced_shard_is_not_mistaken_for_the_one_kept(server, open_cache):
    cache = open_cache()
    old = cache.path("a.tar", crc32=zlib.crc32(server.body))
    server.body = b"new" * 1000
    new = cache.path("a.tar", crc32=zlib.crc32(server.body))
    assert new.read_bytes() == server.body
    assert old != new


def test_a_cut_download_goes_on_where_it_stopped(server, open_cache):
    server.plan("a.tar", "cut", "cut", "fine")
    path = open_cache().path("a.tar", size=len(server.body), crc32=zlib.crc32(server.body))
    assert path.read_bytes() == server.body
    starts = [int(wanted[6:].split("-")[0]) if wanted else 0 for _, wanted in server.asked]
    assert starts[0] == 0
    assert 0 < starts[1] <= starts[2] < len(server.body)


@pytest.mark.parametrize(
    "steps", [("cut untagged", "fine"), ("cut", "whole", "fine"), ("cut", "412", "fine")]
)
def test_a_cut_download_starts_anew_where_it_cannot_go_on(server, open_cache, steps):
    server.plan("a.tar", *steps)
    assert open_cache().path("a.tar").read_bytes() == server.body
    assert server.asked[-1][1] is None


def test_a_file_replaced_between_two_tries_is_not_patched_together(server, open_cache):
    server.plan("a.tar", "cut and replaced", "fine")
    assert open_cache().path("a.tar").read_bytes() == bytes(600_000)
    assert [bool(wanted) for _, wanted in server.asked] == [False, True, False]


def test_errors_of_the_server_are_waited_out(server, open_cache):
    server.plan("a.tar", "500", "503", "fine")
    assert open_cache().path("a.tar").read_bytes() == server.body
    assert len(server.asked) == 3


def test_a_server_that_stays_busy_is_unreachable(server, open_cache):
    server.plan("a.tar", "503")
    error = error_of(open_cache())
    assert error.kind == "unreachable"
    assert str(error).startswith(
        f"{server.url}/a.tar: the server answered 503 Service Unavailable (asked 3 times)"
    )
    assert len(server.asked) == 3


def test_what_failed_is_not_asked_for_again_at_once(server, open_cache):
    server.plan("a.tar", "404")
    cache = open_cache()
    first, second = error_of(cache), error_of(cache)
    assert str(first) == str(second)
    assert first.kind == second.kind == "missing shard"
    assert len(server.asked) == 1


def test_a_missing_shard_is_not_asked_for_twice(server, open_cache):
    server.plan("a.tar", "404")
    error = error_of(open_cache())
    assert error.kind == "missing shard"
    assert "no such file (asked once); check the URL" in str(error)


def test_refused_access_names_the_credentials(server, open_cache):
    server.plan("a.tar", "403")
    error = error_of(open_cache())
    assert error.kind == "unreachable"
    assert "check the credentials in the environment" in str(error)
    assert len(server.asked) == 1


def test_nobody_listening_is_unreachable(open_cache, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    error = error_of(ShardCache(url, tmp_path, 10**9, access=Access(tries=2, wait=0.01)))
    assert error.kind == "unreachable"
    assert "Connection refused (asked 2 times)" in str(error)


def test_a_slow_line_is_no_failure_and_a_stuck_one_is(server, open_cache):
    server.plan("a.tar", "slow")
    server.plan("b.tar", "stuck", "fine")
    server.plan("c.tar", "stuck")
    cache = open_cache(timeout=0.2, tries=2)
    started = time.monotonic()
    assert cache.path("a.tar").read_bytes() == server.body
    assert time.monotonic() - started > 0.2, "longer than the time without a byte that is allowed"
    assert cache.path("b.tar").read_bytes() == server.body
    assert "no byte came for 0.2 s (asked 2 times)" in str(error_of(cache, "c.tar"))


def test_redirects_are_followed(server, open_cache):
    server.plan("a.tar", "elsewhere")
    assert open_cache().path("a.tar").read_bytes() == server.body
    assert [path for path, _ in server.asked] == ["/a.tar", "/elsewhere/file"]


def test_four_processes_fetch_a_shard_once(server, tmp_path):
    server.plan("a.tar", "slow")
    command = [sys.executable, "-c", FETCH, server.url, str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    paths = {process.communicate()[0].strip() for process in running}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == server.body
    assert len(server.asked) == 1


def test_threads_fetch_a_shard_once(server, open_cache):
    server.plan("a.tar", "slow")
    cache = open_cache()
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(cache.path, ["a.tar"] * 8))
    assert len(paths) == len(server.asked) == 1


def test_a_killed_fetch_leaves_nothing_in_the_way(server, open_cache, tmp_path):
    server.plan("a.tar", "stuck", "fine")
    process = subprocess.Popen([sys.executable, "-c", FETCH, server.url, str(tmp_path / "cache")])
    while not server.asked:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert open_cache().path("a.tar").read_bytes() == server.body
    assert files_in(tmp_path / "cache") == {"a.tar"}


def test_the_process_that_downloads_ends_with_the_one_that_asked(server, tmp_path):
    show = "; import time; print(1, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", FETCH.strip() + show, server.url, str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.readline()
    (downloader,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while is_running(downloader):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_forked_process_fetches_what_its_parent_does_not_have(server, open_cache):
    cache = open_cache()
    cache.path("a.tar")
    child = os.fork()
    if child == 0:
        fine = cache.path("b.tar").read_bytes() == server.body
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.path("c.tar").read_bytes() == server.body


def test_a_pickled_cache_is_the_same_cache(server, open_cache):
    cache = open_cache()
    cache.path("a.tar")
    assert pickle.loads(pickle.dumps(cache)).path("b.tar").read_bytes() == server.body


def test_the_oldest_use_leaves_when_room_is_short(server, open_cache, tmp_path):
    cache = open_cache(limit=3 * len(server.body))
    for name in ("a", "b", "c", "a", "d"):
        cache.path(name)
    assert files_in(tmp_path / "cache") == {"c", "a", "d"}
    assert server.counts == {"/a": 1, "/b": 1, "/c": 1, "/d": 1}
    assert cache.path("b").read_bytes() == server.body


def test_a_file_that_is_read_can_leave_the_cache(server, open_cache, tmp_path):
    cache = open_cache(limit=len(server.body))
    with cache.open("a") as file:
        head = file.read(1000)
        cache.path("b")
        assert files_in(tmp_path / "cache") == {"b"}
        assert head + file.read() == server.body


def test_partial_files_of_the_dead_leave_with_the_rest(server, open_cache, tmp_path):
    stale = tmp_path / "cache" / "old" / "z.tar.part"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(bytes(400_000))
    open_cache(limit=len(server.body)).path("a")
    assert files_in(tmp_path / "cache") == {"a"}


def test_what_is_prefetched_is_there_when_it_is_asked_for(server, open_cache):
    cache = open_cache()
    cache.prefetch([RemoteFile("a"), RemoteFile("b"), RemoteFile("c")])
    assert cache.path("b").read_bytes() == server.body
    while len(server.counts) < 3:
        time.sleep(0.01)
    assert cache.path("a").read_bytes() == cache.path("c").read_bytes() == server.body
    assert set(server.counts.values()) == {1}


def test_prefetching_takes_no_more_than_fits(server, open_cache):
    size = len(server.body)
    cache = open_cache(limit=2 * size)
    cache.prefetch(RemoteFile(name, size) for name in "abcd")
    cache.path("b", size=size)
    cache.path("a", size=size)
    assert server.counts == {"/a": 1, "/b": 1}


def test_small_files_are_read_as_they_are_now(server, open_cache, tmp_path):
    cache = open_cache()
    assert cache.read("manifest.json") == server.body
    server.body = b"{}"
    assert cache.read("manifest.json", size=2, crc32=zlib.crc32(b"{}")) == b"{}"
    with pytest.raises(DataError, match="expected 3"):
        cache.read("manifest.json", size=3)
    assert files_in(tmp_path / "cache") == set()


@pytest.mark.parametrize(
    "name",
    ["../a", "a/../../b", "/etc/passwd", "a//b", "", "a/./b", "%2e%2e/a", "a\\b", "a\0b", "a?b"],
)
@pytest.mark.parametrize("root", ["http://127.0.0.1:9", "/data"])
def test_names_stay_below_the_root(name, root, tmp_path):
    cache = ShardCache(root, tmp_path, 10**9)
    for use in (cache.path, cache.read, lambda name: cache.prefetch([RemoteFile(name)])):
        if root == "/data" and use not in (cache.path, cache.read):
            continue
        with pytest.raises(DataError, match="is refused"):
            use(name)


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("ftp://host/data", "not a root to read from"),
        ("s3:///data", "not a root to read from"),
        ("https://me:secret@host/data", "carries a login"),
        ("https://host/data?signature=1", "carries a login"),
    ],
)
def test_odd_roots_are_refused_without_telling_secrets(root, said, tmp_path):
    with pytest.raises(DataError, match=said) as caught:
        ShardCache(root, tmp_path, 10**9)
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "cache").write_text("a file")
    error = error_of(ShardCache(server.url, tmp_path / "cache", 10**9))
    assert error.kind == "shard cache"
    assert "choose another folder" in str(error)


def test_a_download_process_that_dies_is_an_error_and_not_a_wait(server, open_cache, monkeypatch):
    server.plan("a.tar", "stuck")
    cache = open_cache()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(cache.path, "a.tar")
        while not server.asked:
            time.sleep(0.01)
        cache._clients[os.getpid()]._process.kill()
        with pytest.raises(DataError, match="ended with code -9"):
            waiting.result()
    assert cache.path("b.tar").read_bytes() == server.body

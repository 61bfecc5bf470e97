"""Shards of an S3-compatible server: credentials from the environment, public buckets, failures."""

from __future__ import annotations

import os
import zlib

import pytest

from sailvit.core.errors import DataError
from sailvit.data.remote.cache import ShardCache
from sailvit.data.remote.requests import Access

QUICK = {"tries": 3, "wait": 0.01}


def test_a_private_shard_is_fetched_with_the_environments_keys(bucket, tmp_path):
    content = os.urandom(300_000)
    bucket.put("train/a.tar", content)
    path = ShardCache(bucket.url, tmp_path, 10**9).path(
        "train/a.tar", size=300_000, crc32=zlib.crc32(content)
    )
    assert path.read_bytes() == content


def test_an_endpoint_can_be_named_instead(bucket, tmp_path, monkeypatch):
    bucket.put("a.tar", b"content")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    cache = ShardCache(bucket.url, tmp_path, 10**9, access=Access(endpoint=bucket.endpoint))
    assert cache.read("a.tar") == b"content"


@pytest.mark.parametrize("told", ["by option", "by environment"])
def test_a_public_bucket_wants_no_keys(bucket, tmp_path, monkeypatch, told):
    bucket.put("a.tar", b"content", public=True)
    bucket.put("b.tar", b"content")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    if told == "by environment":
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    cache = ShardCache(
        bucket.url, tmp_path, 10**9, access=Access(public=told == "by option", **QUICK)
    )
    assert cache.read("a.tar") == b"content"
    with pytest.raises(
        DataError, match=r"refused access \(asked once\); check the credentials"
    ) as caught:
        cache.read("b.tar")
    assert caught.value.kind == "unreachable"


def test_a_missing_shard_and_a_missing_bucket(bucket, tmp_path):
    for root in (bucket.url, "s3://elsewhere/set"):
        with pytest.raises(DataError, match="no such file") as caught:
            ShardCache(root, tmp_path, 10**9).path("a.tar")
        assert caught.value.kind == "missing shard"
        assert str(caught.value).startswith(f"{root}/a.tar: ")


def test_a_server_that_fails_every_third_request_is_asked_again(bucket, tmp_path):
    names = [f"{number}.tar" for number in range(6)]
    for name in names:
        bucket.put(name, name.encode())
    bucket.asked.clear()
    bucket.fail_every = 3
    cache = ShardCache(bucket.url, tmp_path, 10**9, access=Access(**QUICK))
    assert [cache.path(name).read_bytes() for name in names] == [name.encode() for name in names]
    assert len(bucket.asked) == 8


def test_two_roots_share_a_folder(bucket, tmp_path):
    bucket.put("one/a.tar", b"first")
    bucket.put("two/a.tar", b"second")
    paths = [
        ShardCache(f"{bucket.url}/{which}", tmp_path, 10**9).path("a.tar")
        for which in ("one", "two")
    ]
    assert [path.read_bytes() for path in paths] == [b"first", b"second"]


def test_a_profile_is_read_where_the_environment_has_no_keys(bucket, tmp_path, monkeypatch):
    pytest.importorskip("obstore.auth.boto3")
    bucket.put("a.tar", b"content")
    files = tmp_path / "credentials"
    files.write_text("[work]\naws_access_key_id = me\naws_secret_access_key = secret\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files))
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert ShardCache(bucket.url, tmp_path / "cache", 10**9).read("a.tar") == b"content"

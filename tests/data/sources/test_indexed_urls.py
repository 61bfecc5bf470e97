"""Where the shards of an indexed URL lie."""

from __future__ import annotations

import pytest

from sailvit.data.sources.indexed import _beside


@pytest.mark.parametrize(
    ("url", "root", "expected"),
    [
        ("s3://bucket/sets/index/", "..", "s3://bucket/sets"),
        ("gs://bucket/index/", "../shards", "gs://bucket/shards"),
        ("https://host:8000/a/b/", "../../c", "https://host:8000/c"),
        ("az://box/", "shards", "az://box/shards"),
    ],
)
def test_shards_beside_the_index_are_found_for_any_scheme(url: str, root: str, expected: str):
    assert _beside(url, root) == expected

"""Remote roots as obstore stores."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sailvit.core.errors import DataError
from sailvit.data.remote.errors import telling_part
from sailvit.data.remote.requests import Access, CacheConfig

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

    Store: TypeAlias = AzureStore | GCSStore | HTTPStore | S3Store


def open_store(config: CacheConfig) -> Store:
    """The store of a cache's root; sends no request yet."""
    from obstore.exceptions import BaseError

    try:
        return _open(config)
    except (BaseError, ValueError) as error:
        raise DataError(
            f"{config.root} cannot be opened ({telling_part(str(error))}); account, region and"
            " credentials come from the environment",
            kind="unreachable",
        ) from error


def _open(config: CacheConfig) -> Store:
    from obstore import store

    client = {
        "connect_timeout": timedelta(seconds=min(10, config.access.timeout)),
        # obstore limits a whole download by this, to 30 s by default; the fetcher limits the
        # time without a byte instead.
        "timeout": timedelta(days=1),
        "allow_http": _unencrypted(config),
    }
    # obstore's own retries would multiply with the fetcher's.
    options: dict[str, Any] = {"client_options": client, "retry_config": {"max_retries": 0}}
    scheme = config.root.split(":")[0]
    if scheme.startswith("http"):
        return store.HTTPStore.from_url(config.root, **options)
    if config.access.public:
        options["skip_signature"] = True
    if scheme == "s3":
        own = {} if config.access.public else _profile()
        return store.S3Store.from_url(config.root, **options, **own, **_endpoint(config.access))
    kind = store.GCSStore if scheme == "gs" else store.AzureStore
    return kind.from_url(config.root, **options)


def _endpoint(access: Access) -> dict[str, Any]:
    return {"endpoint": access.endpoint} if access.endpoint else {}


def _unencrypted(config: CacheConfig) -> bool:
    """Whether the user named a server by `http://`; only then may requests be unencrypted."""
    named = [
        config.root,
        config.access.endpoint,
        *(os.environ.get(key) for key in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")),
    ]
    return any(url.startswith("http://") for url in named if url)


def _profile() -> dict[str, Any]:
    """The option with a provider that reads AWS profiles, as obstore does not; none where no
    profile is set up or the environment has keys.
    """
    files = [Path.home() / ".aws" / name for name in ("credentials", "config")]
    wanted = "AWS_PROFILE" in os.environ or any(file.exists() for file in files)
    if not wanted or os.environ.keys() & {"AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE"}:
        return {}
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise DataError(
            "an AWS profile is set up, and reading it needs boto3 (pip install boto3, Python"
            " 3.11); or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
            " AWS_SKIP_SIGNATURE=true for a public bucket",
            kind="unreachable",
        ) from error
    return {"credential_provider": Boto3CredentialProvider()}

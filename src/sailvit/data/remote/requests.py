"""What the download process is sent: once the config of its cache, then a request per file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Access:
    """How a remote root is reached; credentials come from the environment alone."""

    public: bool = False
    """Whether requests are not signed, for public buckets; `AWS_SKIP_SIGNATURE=true` does the
    same."""
    endpoint: str | None = None
    """URL of an S3-compatible server; None: `AWS_ENDPOINT_URL`, or AWS itself."""
    tries: int = 5
    """Requests for one file before it is given up."""
    wait: float = 1.0
    """Seconds before the second request; each further wait is twice as long, and all are
    shortened at random by up to half."""
    timeout: float = 60.0
    """A request fails after so many seconds without a byte."""


@dataclass(frozen=True)
class CacheConfig:
    """Where files come from and where they are kept."""

    root: str
    """URL that all names are relative to."""
    folder: str
    """Folder of the fetched files."""
    limit: int
    """Most bytes that they take together."""
    access: Access
    """How the root is reached."""


@dataclass(frozen=True)
class FetchRequest:
    """One file to fetch."""

    name: str
    """Its name below the root."""
    size: int | None
    """Bytes it must have, if known."""
    crc32: int | None
    """Checksum it must have, if known."""
    path: str
    """Where it is written."""
    waits: list[float]
    """Seconds between its tries; one fewer than tries."""
    prefetch: bool = False
    """Whether it is fetched ahead, so that nothing waits for it yet."""

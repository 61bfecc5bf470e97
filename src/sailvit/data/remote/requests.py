"""What the process that downloads is told: once where from and where to, then one request per
file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Access:
    """How a remote root is reached; credentials come from the environment alone."""

    public: bool = False
    """Whether requests go unsigned, as public buckets want it; `AWS_SKIP_SIGNATURE=true` says
    so too."""
    endpoint: str | None = None
    """URL of an S3-compatible server; None: `AWS_ENDPOINT_URL`, or AWS itself."""
    tries: int = 5
    """Requests for one file before it is given up."""
    wait: float = 1.0
    """Seconds before the second request; each further wait is twice as long, and shortened at
    random by up to half."""
    timeout: float = 60.0
    """Seconds without a single byte after which a request counts as failed."""


@dataclass(frozen=True)
class CacheConfig:
    """Where files come from and where they are kept."""

    root: str
    """URL that all names are relative to."""
    folder: str
    """Folder that holds the files fetched."""
    limit: int
    """Bytes that they may take."""
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
    """Where it goes."""
    waits: list[float]
    """Seconds between its tries, one fewer than there are tries."""
    prefetch: bool = False
    """Whether nobody waits for it yet."""

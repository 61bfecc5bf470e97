"""Ports to listen at."""

from __future__ import annotations

import socket

from sailvit.core.errors import RunError


def refuse_taken(host: str, port: int) -> None:
    """RunError for an address that cannot be listened at, before a model is loaded for nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        # As servers do: an address that was just left is free.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except (OSError, OverflowError) as error:
            raise RunError(
                f"cannot listen at {host}:{port} ({error}); give another port with --port, or end"
                " what listens there"
            ) from error

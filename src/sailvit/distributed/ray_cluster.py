"""Connection to a Ray cluster."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from sailvit.core.errors import SailvitError, one_line


def connected_ray() -> Any:
    """The module `ray`, connected to the cluster that `$RAY_ADDRESS` names; without that variable,
    to one that is started on this machine.

    Raises:
        SailvitError: Ray is not installed, or no cluster lets itself be used at that address.
    """
    ray = _ray()
    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS")
    # A cluster that is started here listens on this machine alone.
    own = {} if address else {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="error", **own)
    # Besides an address where nobody answers: one that Ray cannot read, another version of Ray
    # there, and a token that it asks for.
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"at RAY_ADDRESS={address}" if address else "on this machine"
        raise SailvitError(
            f"no connection to a Ray cluster {where} ({one_line(error, 300)}); see that it runs there (ray"
            " status) in this version of Ray, and whether it asks for a token (RAY_AUTH_MODE=token), or"
            " leave RAY_ADDRESS out for a cluster on this machine"
        ) from error
    return ray


def _ray() -> Any:
    # Ray reports usage to its makers, unless this is set before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return import_module("ray")
    except ImportError as error:
        raise SailvitError(
            f"--ray needs Ray, which cannot be imported ({error}): pip install 'sailvit[ray]'"
        ) from error

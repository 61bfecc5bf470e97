"""Connection to a Ray cluster."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from sailvit.core.errors import SailvitError


def connected_ray() -> Any:
    """The module `ray`, connected to the cluster that `$RAY_ADDRESS` names; without that variable,
    to one that is started on this machine.

    Raises:
        SailvitError: Ray is not installed, or no cluster answers at that address.
    """
    ray = _ray()
    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS")
    # A cluster that is started here listens on this machine alone.
    own = {} if address else {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="error", **own)
    except ConnectionError as error:
        raise SailvitError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}); start one there (ray start"
            " --head), or leave the variable out for one on this machine"
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

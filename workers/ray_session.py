"""Joining a Ray cluster as a driver for a moment, and finding Homeward's detached actors there.

Ray has no authentication unless its token mode is on (`RAY_AUTH_MODE=token`): whoever reaches an open Ray
port runs code on the cluster.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from homeward.errors import WorkerUnavailable

NAMESPACE = "homeward"
_KNOCK_S = 5.0


def actor_names(prefix: str) -> list[str]:
    """Names of the actors that begin so."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return sorted(
        actor["name"]
        for actor in actors
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(prefix)
    )


def find_actor(name: str) -> Any | None:
    """A handle of the actor; None without one."""
    try:
        return ray.get_actor(name, NAMESPACE)
    except ValueError:  # Ray's word for "there is none"
        return None


def keep_stdout() -> None:
    """Leave standard output to this process: what befalls actors Ray prints there, though `log_to_driver` is
    off; it is in the nodes' logs as well."""
    from ray._private import worker

    worker._worker_logs_enabled = False  # no setting says so


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Join the cluster as a driver for a moment; a process that has joined already stays joined."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    keep_stdout()
    try:
        _knock(address)
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise WorkerUnavailable(
            f"no Ray cluster at {address!r} ({error}); start one on this machine with `RAY_AUTH_MODE=token "
            "ray start --head --node-ip-address=127.0.0.1 --include-dashboard=false --disable-usage-stats`",
            code="RAY_UNREACHABLE",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise `OSError` when nothing listens at a host:port: Ray would wait there for minutes."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()

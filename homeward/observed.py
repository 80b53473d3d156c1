"""A process that is watched: its logs and its metrics, opened together as its settings say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from homeward.config import Settings
from homeward.logs import logging_to
from homeward.metrics import PrometheusSink, new_registry
from homeward.metrics_page import serving_metrics, sharing_metrics
from homeward.telemetry import sinks


@contextmanager
def observed_server(settings: Settings) -> Iterator[None]:
    """The metrics of a gRPC server, at `server.metrics_address`. Raises as `serving_metrics` does."""
    with ExitStack() as stack:
        if address := settings.server.metrics_address:
            registry = new_registry()
            stack.enter_context(serving_metrics(address, registry, "server"))
            stack.enter_context(sinks(PrometheusSink(registry)))
        yield


@contextmanager
def observed(settings: Settings, process: str, *, logs: bool = True) -> Iterator[None]:
    """Metrics of a shard, a worker or a load, at `telemetry.metrics_address`, and its logs unless it has
    others already."""
    with ExitStack() as stack:
        if logs:
            stack.enter_context(logged(settings, process))
        if address := settings.telemetry.metrics_address:
            registry = new_registry()
            folder = settings.data_dir / "metrics"
            stack.enter_context(sharing_metrics(address, folder, registry, process))
            stack.enter_context(sinks(PrometheusSink(registry)))
        yield


@contextmanager
def logged(settings: Settings, process: str) -> Iterator[None]:
    """The logs of this process, for whoever owns its stderr."""
    with logging_to(settings.telemetry, process) as sink, sinks(sink):
        yield

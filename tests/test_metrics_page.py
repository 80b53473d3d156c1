"""One page for all processes of a machine: one serves the others, and whoever ends is forgotten."""

from __future__ import annotations

import os
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from homeward import metrics_page
from homeward.errors import InvalidInput, Unavailable
from homeward.metrics_page import serving_metrics, sharing_metrics
from tests.servers.process import free_port, wait_for


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_page, "WRITE_S", 0.05)


def registry(searches: int) -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("homeward_things", "Things.", ("kind",), registry=made).labels('one\n"two"').inc(searches)
    Histogram("homeward_waits_seconds", "Waits.", registry=made).observe(searches)
    return made


def things(address: str) -> dict[str, float]:
    """The counter's value by process; the whole page must be in the format, each family once."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
            text = reply.read().decode()
    except OSError:
        return {}
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    series = [(one.name, tuple(sorted(one.labels.items()))) for each in families for one in each.samples]
    assert len(series) == len(set(series))
    return {
        sample.labels["process"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "homeward_things_total"
    }


def test_processes_of_a_machine_share_a_page_and_another_takes_it_over(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with ExitStack() as later:
        with sharing_metrics(address, tmp_path, registry(1), "shard-0"):
            wait_for(lambda: things(address) == {"shard-0": 1.0}, 10, "the first")
            for number in (1, 2):
                later.enter_context(sharing_metrics(address, tmp_path, registry(number), f"shard-{number}"))
            wait_for(lambda: set(things(address)) == {"shard-0", "shard-1", "shard-2"}, 10, "all")
        wait_for(lambda: things(address) == {"shard-1": 1.0, "shard-2": 2.0}, 10, "without the first")
    assert not list(tmp_path.glob("*"))


def test_a_process_that_died_is_forgotten_and_a_torn_file_hurts_nobody(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "shard-8.prom").write_text('homeward_things_total{kind="x"} 8\n')
    long_ago = time.time() - 3600
    os.utime(tmp_path / "shard-8.prom", (long_ago, long_ago))
    (tmp_path / "shard-9.prom").write_bytes(b'homeward_things_total{kind="x\xff')
    with sharing_metrics(address, tmp_path, registry(1), "shard-0"):
        wait_for(lambda: things(address) == {"shard-0": 1.0}, 10, "the page")
        assert not (tmp_path / "shard-8.prom").exists()


def test_an_address_that_somebody_has_is_refused_and_one_that_is_none(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with serving_metrics(address, registry(1), "server"):
        assert things(address) == {"server": 1.0}
        with pytest.raises(Unavailable, match="in use"), serving_metrics(address, registry(2), "server"):
            pass
    for wrong in ("9464", "127.0.0.1:", "127.0.0.1:port"):
        with pytest.raises(InvalidInput), serving_metrics(wrong, registry(1), "server"):
            pass

"""A real Prometheus that scrapes pages every second and evaluates the chart's alert rules."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.get_promtool import program
from tests.servers.process import Server, free_port, start

_START_S = 60.0


@dataclass(frozen=True)
class Prometheus:
    """The running server and how to ask it."""

    server: Server
    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of its API's answer. Raises `urllib.error.HTTPError` for a query that is none."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=10
        ) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success"
        return answer["data"]

    def values(self, expression: str) -> list[float]:
        """What the expression gives now; nothing where it is not true of anything."""
        return [float(one["value"][1]) for one in self.ask("query", query=expression)["result"]]

    def alerts(self) -> set[str]:
        """Names of the alerts whose expression is true, for long enough to fire or not yet."""
        return {one["labels"]["alertname"] for one in self.ask("alerts")["alerts"]}

    def answers(self) -> bool:
        """Whether it is ready."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False


@contextmanager
def prometheus(targets: Sequence[str], rules: Sequence[Path]) -> Iterator[Prometheus]:
    """Start it over these pages (host:port), stop it and remove its folder at the end."""
    binary = program("prometheus")
    if binary is None:
        raise FileNotFoundError("no prometheus: make setup fetches it")
    folder = Path(tempfile.mkdtemp(prefix="hw-prometheus-"))
    try:
        port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(file) for file in rules],
                    "scrape_configs": [
                        {"job_name": "homeward", "static_configs": [{"targets": list(targets)}]}
                    ],
                }
            )
        )
        command = [
            str(binary),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        running = Prometheus(start("prometheus", command, folder / "log", folder=folder), port)
        try:
            running.server.wait_for(running.answers, _START_S)
            yield running
        finally:
            running.server.stop(grace_s=2.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

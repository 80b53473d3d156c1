"""Scales shards on a Ray cluster from a process of its own, as `homeward index scale` does: the process that
searches never joins Ray.

Run as `python -m tests.cluster.ray_driver`, it takes pickled calls from its standard input, one after the
other, and joins the cluster for each alone.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.shard_process import IndexModel
from homeward.config import Settings
from tests.cluster.ray_nodes import RayCluster


@dataclass(frozen=True)
class RayDriver:
    """The process, and for which index."""

    process: subprocess.Popen[bytes]
    settings: Settings
    model: IndexModel
    address: str

    def scale(self, count: int) -> list[str]:
        """See `cluster.shard_actor.scale_shards`."""
        names: list[str] = self._call("scale_shards", count, self.settings, self.model, self.address)
        return names

    def stop(self) -> int:
        """See `cluster.shard_actor.stop_shards`."""
        count: int = self._call("stop_shards", self.settings, self.model, self.address)
        return count

    def processes(self) -> dict[str, int]:
        """See `cluster.shard_actor.shard_processes`."""
        found: dict[str, int] = self._call("shard_processes", self.address)
        return found

    def _call(self, name: str, *arguments: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((name, arguments), self.process.stdin)
        self.process.stdin.flush()
        result = pickle.load(self.process.stdout)
        if isinstance(result, Exception):
            raise result
        return result


@contextmanager
def ray_driver(cluster: RayCluster, settings: Settings, model: IndexModel) -> Iterator[RayDriver]:
    """Such a process while the context lasts; at the end the shards run on."""
    import os

    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.ray_driver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **cluster.environment},
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield RayDriver(process, settings, model, cluster.address)
        finally:
            process.kill()


def main() -> None:
    """Serve calls until the input ends. Ray writes to standard output: answers go where it was."""
    import os

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from cluster import shard_actor

    while True:
        try:
            name, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        result: Any
        try:
            result = getattr(shard_actor, name)(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is to hear of it
            result = error
        pickle.dump(result, answers)
        answers.flush()


if __name__ == "__main__":
    main()

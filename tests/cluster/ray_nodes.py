"""A real Ray cluster on loopback: a head and workers, each a node of processes of its own that can be killed
at once, as if its machine had lost power.

The head keeps its state in a Redis, so that one that is started again goes on where the last one stopped.
Nodes wait for it for `AWAIT_HEAD_S`; their actors run on meanwhile.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.cluster.ray_node import READY
from tests.servers.process import Server, free_port, start
from tests.servers.redis import redis

AWAIT_HEAD_S = 900
START_S = 120.0


@dataclass(frozen=True)
class RayNode:
    """One node: the processes of one session, whatever groups and names they give themselves."""

    server: Server

    def processes(self) -> list[psutil.Process]:
        """All that run, the one that started the others first."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.server.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill(self) -> None:
        """kill -9 of every process of the node, and of those they start meanwhile."""
        while processes := self.processes():
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.server.process.poll()
            psutil.wait_procs(processes, timeout=0.2)
        self.server.process.wait()


@dataclass
class RayCluster:
    """The nodes, the head first. `address` is what drivers join."""

    folder: Path
    port: int
    environment: Mapping[str, str]  # of nodes and drivers
    redis: Mapping[str, str]  # of the head
    cpus: int
    head_cpus: int
    nodes: list[RayNode] = field(default_factory=list)

    @property
    def address(self) -> str:
        """host:port of the head."""
        return f"127.0.0.1:{self.port}"

    @property
    def head(self) -> RayNode:
        """The node that the head was started with last."""
        return self.nodes[0]

    def start_head(self) -> None:
        """Start a head where the first one was, in its place."""
        self.nodes[:1] = [self._start(head=True)]

    def start_worker(self) -> RayNode:
        """One more node."""
        node = self._start(head=False)
        self.nodes.append(node)
        return node

    def node_of(self, pid: int) -> RayNode:
        """The node that the process belongs to."""
        session = os.getsid(pid)
        return next(node for node in self.nodes if node.server.pid == session)

    def stop(self) -> None:
        """End all nodes."""
        for node in reversed(self.nodes):
            node.kill()

    def _said(self) -> str:
        """What Ray's processes complained of."""
        logs = sorted(self.folder.glob("session_latest/logs/*.err"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[:2000]}" for log in logs)

    def _start(self, *, head: bool) -> RayNode:
        command = [sys.executable, "-m", "tests.cluster.ray_node"]
        cpus = self.head_cpus if head else self.cpus
        command += ["--port", str(self.port), "--cpus", str(cpus), "--folder", str(self.folder)]
        environment = {**self.environment, **(self.redis if head else {})}
        log = self.folder / f"node-{secrets.token_hex(4)}.log"
        root = Path(__file__).parents[2]
        command += ["--head"] if head else []
        node = RayNode(start("ray node", command, log, environment=environment, folder=root))
        try:
            node.server.wait_for(lambda: READY in log.read_text(errors="replace"), START_S)
        except Exception as error:
            error.add_note(self._said())
            node.kill()
            raise
        return node


@contextmanager
def ray_cluster(
    workers: int = 0,
    cpus: int = 2,
    *,
    lasting: bool = False,
    head_cpus: int | None = None,
    more: Mapping[str, str] | None = None,
) -> Iterator[RayCluster]:
    """A head and `workers` more nodes of so many CPUs each. With `lasting` the head can be started again;
    `more` is added to the environment of all nodes."""
    folder = Path(tempfile.mkdtemp(prefix="hw-ray-"))
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Drivers take 127.0.0.1 for the machine's outer address otherwise.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(AWAIT_HEAD_S),
        "RAY_raylet_start_wait_time_s": str(int(START_S)),
        # Every node and every actor is an interpreter of its own: without compiled files a start takes three
        # times as long.
        "PYTHONDONTWRITEBYTECODE": "",
        "RAY_worker_niceness": "0",  # 15 by default: whatever else runs would slow the shards
        **(more or {}),
    }
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        store: dict[str, str] = {}
        if lasting:
            server = stack.enter_context(redis())
            store = {"RAY_REDIS_ADDRESS": server.address, "RAY_REDIS_PASSWORD": server.password}
        cluster = RayCluster(
            folder, free_port(), environment, store, cpus, cpus if head_cpus is None else head_cpus
        )
        stack.callback(cluster.stop)
        cluster.start_head()
        for _ in range(workers):
            cluster.start_worker()
        yield cluster

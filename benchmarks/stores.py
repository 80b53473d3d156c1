"""Real stores for benchmarks: PostgreSQL, Milvus and S3 on loopback, in folders that go or that are kept."""

from __future__ import annotations

import json
import os
import pwd
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import sqlalchemy as sa

from homeward.config import CatalogueSettings, GallerySettings, PhotoStoreSettings
from tests.servers import milvus as milvus_server
from tests.servers import postgres as postgres_server
from tests.servers import seaweed as seaweed_server
from tests.servers.process import Server, free_ports, listens, start

COLLECTION = "homeward"
_DATABASE = "homeward"
_START_S = 180.0
# What whoever runs PostgreSQL for a gallery of millions sets first: the tables that searches read fit in.
_TUNED = {"shared_buffers": "2GB"}
_NOTE = "stores.json"


@dataclass(frozen=True, slots=True)
class Stores:
    """The three running servers with Homeward's database, collections and bucket."""

    catalogue: CatalogueSettings
    gallery: GallerySettings
    photos: PhotoStoreSettings
    postgres: postgres_server.Postgres
    milvus: milvus_server.Milvus

    def environment(self) -> dict[str, str]:
        """The settings of a Homeward process over these stores."""
        found: dict[str, str] = {}
        for section in ("catalogue", "gallery", "photos"):
            settings = getattr(self, section)
            for name in sorted(settings.model_fields_set):
                value = getattr(settings, name)
                plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
                found[f"HOMEWARD_{section}__{name}".upper()] = str(plain)
        return found

    def connect(self) -> psycopg.Connection:
        """A connection to the catalogue's database, committing each statement."""
        return self.postgres.connect(str(sa.make_url(self.catalogue.uri).database))


@contextmanager
def running_stores(keep: Path | None = None) -> Iterator[Stores]:
    """Start the servers and stop them at the end. With a folder to keep, what they hold stays there, and they
    start again with it, on the same ports."""
    with ExitStack() as stack:
        if keep is None:
            postgres = stack.enter_context(postgres_server.postgres(_TUNED))
            milvus = stack.enter_context(milvus_server.milvus())
            seaweed = stack.enter_context(seaweed_server.seaweed())
        else:
            postgres, milvus, seaweed = stack.enter_context(_kept(keep))
        with postgres.connect() as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_DATABASE,))
            if found.fetchone() is None:
                connection.execute(f"CREATE DATABASE {_DATABASE}".encode())
        yield Stores(
            catalogue=postgres.settings(_DATABASE),
            gallery=milvus.settings(COLLECTION, timeout_s=300.0),
            photos=seaweed.settings("homeward-photos"),
            postgres=postgres,
            milvus=milvus,
        )


Servers = tuple[postgres_server.Postgres, milvus_server.Milvus, seaweed_server.Seaweed]


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server was started, so that it can be started again."""

    name: str
    command: list[str]
    environment: dict[str, str]  # beside this process's
    folder: str
    user: int | None
    log: str

    @classmethod
    def of(cls, server: Server) -> Launch:
        """Read from the running process."""
        process = psutil.Process(server.pid)
        user = process.uids().real
        own = {name: value for name, value in process.environ().items() if os.environ.get(name) != value}
        command = [str(part) for part in server.process.args]  # type: ignore[union-attr]
        return cls(
            server.name, command, own, process.cwd(), None if user == os.geteuid() else user, str(server.log)
        )

    def again(self) -> Server:
        """Start it with what it holds."""
        return start(
            self.name,
            self.command,
            Path(self.log),
            environment=self.environment,
            user=self.user,
            folder=Path(self.folder),
        )


@contextmanager
def _kept(keep: Path) -> Iterator[Servers]:
    keep.mkdir(parents=True, exist_ok=True)
    note = keep / _NOTE
    started: list[Server] = []
    try:
        if note.is_file():
            servers = _restarted(json.loads(note.read_text(encoding="utf-8")), started)
        else:
            servers = _new(keep.resolve(), started)
        postgres, milvus, seaweed = servers
        postgres.server.wait_for(postgres.answers, _START_S)
        milvus.server.wait_for(milvus.answers, _START_S)
        seaweed.server.wait_for(lambda: listens(seaweed.port), _START_S)
        if not note.is_file():
            _write(note, servers)
        yield servers
    finally:
        for server in reversed(started):
            # PostgreSQL writes all it has; the others have written what they answered for, and take a minute.
            if server.name == "postgres":
                server.stop(grace_s=60.0, by=signal.SIGINT)
            else:
                server.kill()


def _new(keep: Path, started: list[Server]) -> Servers:
    folders = {name: keep / name for name in ("postgres", "milvus", "seaweed")}
    for folder in folders.values():
        folder.mkdir(mode=0o755)
    source = postgres_server.programs()
    weed = seaweed_server.binary()
    if source is None or weed is None:
        raise FileNotFoundError("no PostgreSQL or S3 server: install the dev dependencies")
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    programs = postgres_server._reachable(source, folders["postgres"], user)
    postgres = postgres_server.Postgres(*postgres_server._start(programs, folders["postgres"], user, _TUNED))
    started.append(postgres.server)
    *ports, peer, health = free_ports(len(milvus_server._PORTS) + 2)
    named = dict(zip(milvus_server._PORTS, ports, strict=True))
    server = milvus_server._start(folders["milvus"], named, peer, health)
    started.append(server)
    milvus = milvus_server.Milvus(server, named["proxy_port"], health)
    ports = free_ports(8)
    server = seaweed_server._start(weed, folders["seaweed"], ports)
    started.append(server)
    return postgres, milvus, seaweed_server.Seaweed(server, ports[seaweed_server._S3])


def _write(note: Path, servers: Servers) -> None:
    postgres, milvus, seaweed = servers
    said: dict[str, Any] = {
        "launches": [asdict(Launch.of(each.server)) for each in servers],
        "postgres": {"port": postgres.port, "password": postgres.password},
        "milvus": {"port": milvus.port, "health_port": milvus.health_port},
        "seaweed": {"port": seaweed.port},
    }
    note.touch(mode=0o600)
    note.write_text(json.dumps(said, indent=2), encoding="utf-8")


def _restarted(said: dict[str, Any], started: list[Server]) -> Servers:
    running = []
    for launch in said["launches"]:
        running.append(Launch(**launch).again())
        started.append(running[-1])
    return (
        postgres_server.Postgres(running[0], **said["postgres"]),
        milvus_server.Milvus(running[1], **said["milvus"]),
        seaweed_server.Seaweed(running[2], **said["seaweed"]),
    )

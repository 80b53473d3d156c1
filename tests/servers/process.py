"""Starts and stops one server as a process group of its own."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PORTS = (15_000, 32_768)


def free_port() -> int:
    """A loopback TCP port nobody listens on at this moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Several different loopback TCP ports nobody listens on at this moment.

    From below those that systems give to outgoing connections: one of these would be taken, now and then,
    before its server listens."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            each = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                each.bind(("127.0.0.1", random.randrange(*_PORTS)))
            except OSError:
                each.close()
            else:
                sockets.append(each)
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a TCP connection to the port is taken."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


def wait_for(predicate: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Return when `predicate` is true; raise `TimeoutError` naming `what` after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.05)


@dataclass(frozen=True)
class Server:
    """One running child with what it wrote."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Process id, which is also that of its process group."""
        return self.process.pid

    def wait_for(self, predicate: Callable[[], bool], timeout_s: float) -> None:
        """Wait for the server to be ready; its log's end is in the error if it is not."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.log_tail()}")
            return predicate()

        try:
            wait_for(ready, timeout_s, self.name)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log_tail()}") from error

    def log_tail(self) -> str:
        """The last lines the server wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def kill(self) -> None:
        """SIGKILL to the whole group: the crash that tests ask for."""
        _signal(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, grace_s: float = 10.0, by: signal.Signals = signal.SIGTERM) -> None:
        """End the server, politely first, and whatever it started."""
        if self.process.poll() is None:
            os.kill(self.pid, by)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        _signal(self.pid, signal.SIGKILL)
        self.process.wait()


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    folder: Path | None = None,
) -> Server:
    """Start `command` in a process group of its own; output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
        )
    return Server(name, process, log)


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)

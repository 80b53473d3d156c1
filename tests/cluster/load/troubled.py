"""An S3 server that is slow, refuses or is gone: a proxy on loopback before a real one."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\n"
    b"Connection: close\r\nContent-Length: 80\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
)
_CHUNK = 1 << 16
_LIFE_S = 1.0  # of a connection, so that a fault that begins is soon felt


@dataclass(slots=True)
class Proxy:
    """Passes connections on. Its fields may be changed at any moment."""

    port: int
    upstream: int
    busy: float = 0.0  # share of connections that are answered with 503
    delay_s: float = 0.0  # before a connection is passed on
    gone: bool = False  # connections are cut at once
    refused: int = 0  # connections that were not passed on


@contextmanager
def proxied(upstream: int, seed: int = 3) -> Iterator[Proxy]:
    """A proxy before a port of loopback, ended with its threads."""
    chance = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener.getsockname()[1], upstream)
        ended = threading.Event()

        def accept() -> None:
            while not ended.is_set():
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_serve, args=(proxy, client, chance), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            ended.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _serve(proxy: Proxy, client: socket.socket, chance: random.Random) -> None:
    with client, contextlib.suppress(OSError):
        if proxy.gone:
            proxy.refused += 1
            return
        if chance.random() < proxy.busy:
            proxy.refused += 1
            client.settimeout(5)
            client.recv(_CHUNK)
            client.sendall(_BUSY)
            return
        time.sleep(proxy.delay_s)
        with socket.create_connection(("127.0.0.1", proxy.upstream)) as server:
            until = time.monotonic() + _LIFE_S
            back = threading.Thread(target=_pass, args=(proxy, server, client), daemon=True)
            back.start()
            _pass(proxy, client, server, until)
            back.join(30)


def _pass(proxy: Proxy, source: socket.socket, target: socket.socket, until: float | None = None) -> None:
    """Copy until the end. With `until`, requests that begin later are for another connection."""
    with contextlib.suppress(OSError):
        source.settimeout(0.2 if until else None)
        while not proxy.gone:
            try:
                data = source.recv(_CHUNK)
            except TimeoutError:
                if until is not None and time.monotonic() > until:
                    break
                continue
            if not data:
                break
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

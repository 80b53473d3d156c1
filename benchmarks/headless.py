"""DNS of a headless Service: one name, and the address of each pod that is ready, in UDP on loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

_A = 1
_HEADER = struct.Struct(">HHHHHH")  # id, flags, questions, answers, authorities, additionals
_ANSWER = struct.Struct(">HHHIH4s")  # pointer to the name, type, class, seconds to live, length, address
_ANSWERED = 0x8580  # a response, authoritative, recursion desired and available
_NO_SUCH_NAME = 3
_NAME_AT = 0xC000 | _HEADER.size
_TTL_S = 5  # as CoreDNS says for Kubernetes' names


class Headless(asyncio.DatagramProtocol):
    """The name and who is ready. Made by `headless`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ""  # host:port at which it answers
        self.ready: list[str] = []  # IPv4 addresses
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.DatagramProtocol`."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question; what is none gets no answer."""
        try:
            answer = self._answer(data)
        except (struct.error, IndexError, UnicodeDecodeError):
            return
        self._transport.sendto(answer, addr)

    def _answer(self, data: bytes) -> bytes:
        (number, *_) = _HEADER.unpack_from(data)
        labels, at = [], _HEADER.size
        while length := data[at]:
            labels.append(data[at + 1 : at + 1 + length].decode("ascii"))
            at += 1 + length
        kind, _ = struct.unpack_from(">HH", data, at + 1)
        question = data[_HEADER.size : at + 5]
        is_ours = ".".join(labels).lower() == self.name
        ready = self.ready if is_ours and kind == _A else []
        flags = _ANSWERED | (0 if is_ours else _NO_SUCH_NAME)
        answers = [
            _ANSWER.pack(_NAME_AT, _A, 1, _TTL_S, 4, ipaddress.IPv4Address(one).packed) for one in ready
        ]
        return _HEADER.pack(number, flags, 1, len(answers), 0, 0) + question + b"".join(answers)


@asynccontextmanager
async def headless(name: str, host: str) -> AsyncIterator[Headless]:
    """Answer for a name while the context lasts, at a free port of a loopback host."""
    loop = asyncio.get_running_loop()
    transport, service = await loop.create_datagram_endpoint(lambda: Headless(name), local_addr=(host, 0))
    try:
        yield service
    finally:
        transport.close()

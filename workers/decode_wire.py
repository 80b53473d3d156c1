"""What a decoder child and its parent share: a block of memory and small messages.

The memory is one sealed memfd per child (no name, so nothing to leak, whoever is killed). It holds a
header and `SLOTS` slots, each with room for one photo's bytes and for its pixels. Messages travel over
a SOCK_SEQPACKET pair and are JSON, because the parent must not unpickle what a child says.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
from dataclasses import dataclass
from typing import Any

import numpy as np

from homeward.types import UInt8
from workers.decode import DecodeLimits

SLOTS = 2  # one photo is decoded while the next is already there
MESSAGE_BYTES = 16384
_HEADER_BYTES = mmap.PAGESIZE
# What an idle slot may keep: the pages of an ordinary photo, so that the next one finds them mapped.
_KEEP_INPUT_BYTES = 1 << 20
_KEEP_OUTPUT_BYTES = 8 << 20


def _whole_pages(count: int) -> int:
    return -(-count // mmap.PAGESIZE) * mmap.PAGESIZE


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie in the shared memory."""

    input_bytes: int  # room for one photo's bytes
    output_bytes: int  # room for its pixels

    @staticmethod
    def of(limits: DecodeLimits) -> Layout:
        """Room for the largest photo that the limits allow; only pages touched take memory."""
        pixels = limits.max_pixels
        if limits.scale_to_px:
            pixels = min(pixels, limits.scale_to_px**2)
        return Layout(_whole_pages(limits.max_bytes), _whole_pages(3 * pixels))

    @property
    def total_bytes(self) -> int:
        """Size of the whole block."""
        return _HEADER_BYTES + SLOTS * (self.input_bytes + self.output_bytes)

    def input_at(self, slot: int) -> int:
        """Offset of a slot's photo bytes."""
        return _HEADER_BYTES + slot * (self.input_bytes + self.output_bytes)

    def output_at(self, slot: int) -> int:
        """Offset of a slot's pixels."""
        return self.input_at(slot) + self.input_bytes


def create_memory(layout: Layout) -> int:
    """A new memfd whose size is sealed: a child that shrank it would kill its parent by SIGBUS."""
    descriptor = os.memfd_create("homeward-decode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, layout.total_bytes)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class SharedSlots:
    """The block as one side has it mapped. Not thread-safe: one thread per child uses it."""

    def __init__(self, descriptor: int, layout: Layout) -> None:
        self._layout = layout
        self._map = mmap.mmap(descriptor, layout.total_bytes)
        self._bytes: UInt8 = np.frombuffer(self._map, np.uint8)
        self._header = np.frombuffer(self._map, np.int64, count=1)

    @property
    def started(self) -> int:
        """How many photos the child has begun: tells whom to blame when it is gone."""
        return int(self._header[0])

    def mark_started(self, count: int) -> None:
        """The child's note that it begins its `count`-th photo."""
        self._header[0] = count

    def write_input(self, slot: int, data: bytes) -> None:
        """Put one photo's bytes into a slot."""
        at = self._layout.input_at(slot)
        self._bytes[at : at + len(data)] = np.frombuffer(data, np.uint8)

    def read_input(self, slot: int, count: int) -> bytes:
        """One photo's bytes, copied out."""
        at = self._layout.input_at(slot)
        return self._bytes[at : at + count].tobytes()

    def write_output(self, slot: int, pixels: UInt8) -> None:
        """Put (h, w, 3) pixels into a slot. Raises ValueError when they do not fit."""
        if pixels.size > self._layout.output_bytes:
            raise ValueError("more pixels than the limits allow")
        self._pixels(slot, *pixels.shape[:2])[...] = pixels

    def take_output(self, slot: int, height: int, width: int) -> UInt8:
        """(h, w, 3) pixels, copied out."""
        return self._pixels(slot, height, width).copy()

    def fits(self, height: int, width: int) -> bool:
        """Whether a child can have written that many pixels."""
        return height > 0 and width > 0 and 3 * height * width <= self._layout.output_bytes

    def release(self, slot: int, input_count: int, output_count: int) -> None:
        """Give back the pages of a slot that only a large photo needs."""
        for at, used, keep in (
            (self._layout.input_at(slot), input_count, _KEEP_INPUT_BYTES),
            (self._layout.output_at(slot), output_count, _KEEP_OUTPUT_BYTES),
        ):
            if used > keep:
                self._map.madvise(mmap.MADV_REMOVE, at + keep, _whole_pages(used) - keep)

    def _pixels(self, slot: int, height: int, width: int) -> UInt8:
        at = self._layout.output_at(slot)
        return self._bytes[at : at + 3 * height * width].reshape(height, width, 3)


def send(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send one message. Raises OSError when the other side is gone."""
    channel.send(json.dumps(message).encode())


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """Wait for one message; None when the other side is gone. Raises ValueError when it is not ours."""
    try:
        raw = channel.recv(MESSAGE_BYTES)
    except ConnectionError:
        return None
    if not raw:
        return None
    message = json.loads(raw)
    if not isinstance(message, dict):
        raise ValueError("a message must be a JSON object")  # noqa: TRY004 - data, not a type of ours
    return message

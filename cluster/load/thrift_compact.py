"""Thrift's compact protocol, in which a Parquet file says what it holds.

pyarrow says the same of a file, but of a damaged one in a way that ends the process.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from cluster.load.table import TableUnreadable

_DEPTH = 16
_VALUES = 300_000  # of one reader: each may take hundreds of times the memory that it takes in the file
_TEXT_BYTES = 256
_TRUE, _FALSE, _BYTE, _INTS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 1, 2, 3, (4, 5, 6), 7, 8, (9, 10), 12


def damaged() -> TableUnreadable:
    """The error for what does not say what it must."""
    return TableUnreadable("it is damaged: what it says of itself makes no sense")


class CompactReader:
    """Reads structures from a part of a file; of texts only the short ones are kept."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        file.seek(start)
        self._file = file
        self._end = end
        self._left = _VALUES
        self.at = start

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The values of a structure by the number of their field. Raises `TableUnreadable`."""
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            found[field] = self._value(head & 15, depth + 1)
        return found

    def _value(self, kind: int, depth: int, *, in_list: bool = False) -> Any:
        self._left -= 1
        if depth > _DEPTH or not self._left:
            raise damaged()
        if kind in (_TRUE, _FALSE):
            return self._byte() == _TRUE if in_list else kind == _TRUE
        if kind in _INTS:
            return self._signed()
        if kind in (_BYTE, _DOUBLE, _BINARY):
            return self._bytes(1 if kind == _BYTE else 8 if kind == _DOUBLE else self._varint())
        if kind == _STRUCT:
            return self.struct(depth)
        if kind not in _LISTS:
            raise damaged()
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4
        return [self._value(head & 15, depth + 1, in_list=True) for _ in range(count)]

    def _byte(self) -> int:
        read = self._file.read(1) if self.at < self._end else b""
        if not read:
            raise damaged()
        self.at += 1
        return read[0]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise damaged()

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _bytes(self, count: int) -> bytes | None:
        self.at += count
        if self.at > self._end:
            raise damaged()
        if count <= _TEXT_BYTES:
            return self._file.read(count)
        self._file.seek(self.at)
        return None

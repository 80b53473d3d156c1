"""Where the columns of a Parquet file lie, and how large their pages are, as the pages' own headers say.

A reader takes a page into memory whole, and repeats a value of a dictionary as often as the page says: a file
of a few kB may ask for gigabytes. What the file's footer says of sizes binds nobody; the headers of the pages
are what the reader goes by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

from cluster.load.table import TableUnreadable
from cluster.load.thrift_compact import CompactReader, damaged

PAGE_VALUES = 8 << 20  # more is no page that a writer makes of a table of people
DICTIONARY_VALUES = 1 << 20
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_DATA_HEADER, _DICTIONARY_HEADER, _DATA_V2_HEADER = 5, 7, 8
_DELTA_BYTE_ARRAY = 7  # a value is written as what it adds to the one before it
_FOOTER_BYTES = 8 << 20
_FOOTER_END = 8  # its length, and the magic
_ROW_GROUPS, _COLUMNS, _COLUMN = 4, 1, 3  # fields of the footer, of a row group, and of a column
_PATH, _VALUES, _PACKED, _DATA_AT, _DICTIONARY_AT = 3, 5, 7, 9, 11  # of a column


@dataclass(frozen=True, slots=True)
class PageSizes:
    """Of one column in one row group, in bytes."""

    largest: int = 0  # a page as it is written and as it is unpacked
    data: int = 0  # all data pages, unpacked
    expanding: int = 0  # the largest page, unpacked, whose values take more memory than the page

    def of_rows(self, rows: int) -> int:
        """The most that so many rows take: no value is longer than its page or dictionary."""
        return min(self.data, rows * self.largest) + rows * self.expanding


@dataclass(frozen=True, slots=True)
class ColumnPlace:
    """Where a column of one row group lies."""

    path: str  # its name, and those of the columns inside it, with dots
    start: int
    length: int
    values: int


def row_groups(file: BinaryIO) -> list[list[ColumnPlace]]:
    """The columns of each row group. Raises `TableUnreadable` for a file that does not say it, or says so
    much that it is no table of people."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _FOOTER_END))
    length = int.from_bytes(file.read(4), "little")
    start = size - _FOOTER_END - length
    if start < 0:
        raise TableUnreadable("it is cut off")
    if length > _FOOTER_BYTES:
        raise TableUnreadable(f"its footer has {length:,} bytes; at most {_FOOTER_BYTES:,} are read")
    footer = CompactReader(file, start, size - _FOOTER_END).struct()
    return [
        [_place(_inner(column, _COLUMN)) for column in _structs(group, _COLUMNS)]
        for group in _structs(footer, _ROW_GROUPS)
    ]


def _place(column: dict[int, Any]) -> ColumnPlace:
    path = column.get(_PATH)
    if not isinstance(path, list) or not all(isinstance(step, bytes) for step in path):
        raise damaged()
    start, dictionary = _whole(column, _DATA_AT), column.get(_DICTIONARY_AT)
    if isinstance(dictionary, int) and 0 < dictionary < start:
        start = dictionary
    name = b".".join(path).decode(errors="backslashreplace")
    return ColumnPlace(name, start, _whole(column, _PACKED), _whole(column, _VALUES))


def page_sizes(file: BinaryIO, column: ColumnPlace) -> PageSizes:
    """Look at every page of a column. Raises `TableUnreadable` for what is none."""
    largest = data = expanding = seen = 0
    start, end = column.start, column.start + column.length
    while start < end and seen < column.values:
        reader = CompactReader(file, start, end)
        header = reader.struct()
        packed, unpacked = _whole(header, 3), _whole(header, 2)
        kind = _whole(header, 1)
        largest = max(largest, packed + unpacked)
        count = 0
        if kind == _DICTIONARY:
            expanding = max(expanding, unpacked)
            if _whole(_inner(header, _DICTIONARY_HEADER), 1) > DICTIONARY_VALUES:
                raise TableUnreadable(f"a dictionary has more than {DICTIONARY_VALUES:,} values")
        elif kind in (_DATA, _DATA_V2):
            data += unpacked
            inner = _inner(header, _DATA_HEADER if kind == _DATA else _DATA_V2_HEADER)
            count = _whole(inner, 1)
            if _whole(inner, 2 if kind == _DATA else 4) == _DELTA_BYTE_ARRAY:
                expanding = max(expanding, unpacked)
        if count > PAGE_VALUES:
            raise TableUnreadable(f"a page has more than {PAGE_VALUES:,} values")
        seen += count
        start = reader.at + packed
    return PageSizes(largest, data, expanding)


def _whole(found: dict[int, Any], field: int) -> int:
    value = found.get(field)
    if not isinstance(value, int) or value < 0:
        raise damaged()
    return value


def _inner(found: dict[int, Any], field: int) -> dict[int, Any]:
    value = found.get(field)
    if not isinstance(value, dict):
        raise damaged()
    return value


def _structs(found: dict[int, Any], field: int) -> list[dict[int, Any]]:
    value = found.get(field)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise damaged()
    return value

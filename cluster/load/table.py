"""What a manifest's file is, whatever its format: rows of texts under named columns.

No row and no value is held that is longer than a bound: a file of a few kB can say that it has gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

ROW_CHARS = 1 << 20  # of one row of a CSV file
VALUE_BYTES = 1 << 16  # more than the longest text that any column may have


class TableUnreadable(Exception):
    """The file as a whole, or what follows in it, cannot be read."""


@dataclass(frozen=True, slots=True)
class Unread:
    """What stands where a row or a value should be: why there is none."""

    why: str


Cells: TypeAlias = Sequence[str | Unread]


class Table(Protocol):
    """Rows of texts under named columns."""

    @property
    def columns(self) -> Sequence[str]:
        """The names in the file's first line, or in its schema; bytes that are no UTF-8 as surrogates."""
        ...

    def rows(self) -> Iterator[tuple[int, Cells | Unread]]:
        """Each row's line and values, as many as there are columns. Raises `TableUnreadable`."""
        ...

"""A manifest as CSV: RFC 4180, with the separator that the first line has."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cluster.load.table import ROW_CHARS, Cells, TableUnreadable, Unread

_PIECE_CHARS = 1 << 16
_SEPARATORS = ",;\t"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class CsvTable:
    """Bytes that are no UTF-8 become surrogates: they cost their own row at most."""

    def __init__(self, path: Path) -> None:
        """Raises `TableUnreadable`, `OSError`."""
        self._path = path
        with path.open("rb") as raw:
            if raw.read(2) in _UTF16:
                raise TableUnreadable("it is UTF-16; save it as CSV in UTF-8")
        with self._open() as file:
            first = file.readline(ROW_CHARS)
        self._separator = max(_SEPARATORS, key=first.count)
        with self._open() as file:
            self._columns = self._header(file)

    @property
    def columns(self) -> Sequence[str]:
        """See `Table`."""
        return self._columns

    def rows(self) -> Iterator[tuple[int, Cells | Unread]]:
        """See `Table`. A row's line is the one that it begins in."""
        try:
            with self._open() as file:
                found = split_rows(file, self._separator)
                next(found, None)
                for row in found:
                    values = self._values(row)
                    if values:
                        yield row.first, values
        except OSError as error:
            raise TableUnreadable(error.strerror or str(error)) from error

    def _header(self, file: TextIO) -> list[str]:
        row = next(split_rows(file, self._separator), None)
        if row is None:
            return []
        if row.text is None:
            raise TableUnreadable(f"its first row is longer than {ROW_CHARS:,} characters")
        try:
            return [name.strip() for name in self._parse(row.text)]
        except csv.Error as error:
            raise TableUnreadable(f"its first row: {error}: is a quotation mark missing?") from error

    def _values(self, row: RawRow) -> list[str] | Unread:
        """Nothing of an empty line."""
        if row.text is None:
            return Unread(
                f"is longer than {ROW_CHARS:,} characters: is a quotation mark missing? {row.nothing_used}"
            )
        try:
            values = self._parse(row.text)
        except csv.Error as error:
            return Unread(f"{error}: is a quotation mark missing? {row.nothing_used}")
        if values and len(values) != len(self._columns):
            return Unread(f"has {len(values)} fields, the first line has {len(self._columns)}")
        return values

    def _parse(self, text: str) -> list[str]:
        return next(csv.reader([text], delimiter=self._separator, strict=True), [])

    def _open(self) -> TextIO:
        return self._path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it."""

    first: int  # its lines, from 1 on
    last: int
    text: str | None  # None: it is longer than a row may be

    @property
    def nothing_used(self) -> str:
        """For people: what a row costs that cannot be read."""
        lines = f"lines {self.first} to {self.last}" if self.last > self.first else "it"
        return f"Nothing of {lines} is used"


def split_rows(file: TextIO, separator: str) -> Iterator[RawRow]:
    """The rows of a file that was opened with `newline=""`: lines, or several where a line's end is quoted.

    Of a row that is too long no more is held than what it may have; its end is found all the same.
    """
    last = first = 0
    held: list[str] = []
    length = 0
    quotes = _Quotes(separator)
    for piece, ends in _pieces(file):
        if not first:
            first = last + 1
        length += len(piece)
        if length > ROW_CHARS:
            held.clear()
        else:
            held.append(piece)
        quotes.see(piece)
        last += ends
        if ends and not quotes.open:
            yield RawRow(first, last, "".join(held) if length <= ROW_CHARS else None)
            first, held, length, quotes = 0, list[str](), 0, _Quotes(separator)
    if first:
        yield RawRow(first, max(first, last), "".join(held) if length <= ROW_CHARS else None)


def _pieces(file: TextIO) -> Iterator[tuple[str, bool]]:
    """Lines, long ones in pieces; whether the line ends with the piece."""
    piece = file.readline(_PIECE_CHARS)
    while piece:
        after = None
        if len(piece) == _PIECE_CHARS and piece.endswith("\r"):  # perhaps it was cut between CR and LF
            after = file.readline(_PIECE_CHARS)
            if after == "\n":
                piece, after = piece + after, None
        yield piece, piece.endswith(("\n", "\r"))
        piece = file.readline(_PIECE_CHARS) if after is None else after


class _Quotes:
    """Whether a row is inside a quoted value, as the csv module sees it: a quotation mark opens a value only
    where it is the value's first character."""

    def __init__(self, separator: str) -> None:
        self.open = False
        self._separator = separator
        self._opening = separator + '"'
        self._fresh = True  # the next character begins a value
        self._closed = False  # the last character closed a value, or is the first of a doubled mark
        self._wrong = False  # the rest of the row makes no sense: it ends with its line

    def see(self, piece: str) -> None:
        """Go on to the end of the piece."""
        at = 0
        while at < len(piece) and not self._wrong:
            if self.open:
                end = piece.find('"', at)
                if end < 0:
                    return
                self.open, self._closed, at = False, True, end + 1
                continue
            if piece[at] == '"' and (self._fresh or self._closed):
                self.open, at = True, at + 1
            elif self._closed and piece[at] not in (self._separator, "\r", "\n"):
                self._wrong = True
            else:
                begin = piece.find(self._opening, at)
                self.open = begin >= 0
                at = begin + len(self._opening) if self.open else len(piece)
            self._closed = False
            self._fresh = not self.open and piece.endswith(self._separator)

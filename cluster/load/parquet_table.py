"""A manifest as Parquet: columns of texts, numbers, truth values or dates; null is empty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cluster.load.parquet_pages import PageSizes, page_sizes, row_groups
from cluster.load.parquet_values import Reader, names_nobody, reader_of
from cluster.load.table import Cells, TableUnreadable, Unread

MAGIC = b"PAR1"
_PAGES_BYTES = 64 << 20  # of the largest page of every column, packed and unpacked
_BATCH_BYTES = 32 << 20
_BATCH_ROWS = (1024, 256, 64, 16, 4)
_BUFFER_BYTES = 1 << 20  # of a column that is read at a time


class ParquetTable:
    """Reads the columns that are wanted, few rows at a time where their values may be long."""

    def __init__(self, path: Path, wanted: Sequence[str], keys: Sequence[str]) -> None:
        """`keys`: the columns that tell photos and records apart. Raises `TableUnreadable`, `OSError`."""
        self._path = path
        with path.open("rb") as file:
            self._groups = row_groups(file)
        with self._open() as opened, _told():
            schema = opened.schema_arrow
            self._columns = list(schema.names)
            found = [(at, name) for at, name in enumerate(self._columns) if name in wanted]
            self._readers = {at: _reader(name, schema.field(at).type, name in keys) for at, name in found}

    @property
    def columns(self) -> Sequence[str]:
        """See `Table`."""
        return self._columns

    def rows(self) -> Iterator[tuple[int, Cells | Unread]]:
        """See `Table`. A row's line is its number from 1 on."""
        line = 0
        readers = {self._columns[at]: reader for at, reader in self._readers.items()}
        for batch in self._batches(list(readers)):
            values = {name: batch.column(name) for name in readers}
            for row in range(batch.num_rows):
                line += 1
                given = {name: _cell(values[name], row, read) for name, read in readers.items()}
                yield line, [given.get(name, "") for name in self._columns]

    def _batches(self, names: Sequence[str]) -> Iterator[Any]:
        dotted = tuple(f"{name}." for name in names)
        with self._open() as opened, self._file() as file:
            for group, columns in enumerate(self._groups):
                # pyarrow reads those too that begin with a name and a dot
                read = [one for one in columns if one.path in names or one.path.startswith(dotted)]
                with _told():
                    rows = _rows_at_a_time([page_sizes(file, column) for column in read])
                    batches = opened.iter_batches(rows, [group], names, use_threads=False)
                while True:
                    with _told():
                        batch = next(batches, None)
                    if batch is None:
                        break
                    yield batch

    @contextmanager
    def _open(self) -> Iterator[Any]:
        from pyarrow.parquet import ParquetFile

        with _told():
            opened = ParquetFile(self._path, buffer_size=_BUFFER_BYTES)
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def _file(self) -> Iterator[BinaryIO]:
        with _told():
            file = self._path.open("rb")
        with file:
            yield file


def _reader(name: str, kind: Any, is_key: bool) -> Reader:
    reader = reader_of(kind)
    if reader is None or (is_key and names_nobody(kind)):
        raise TableUnreadable(f"its column {name} is of the type {kind}: write it as text")
    return reader


def _cell(values: Any, row: int, read: Reader) -> str | Unread:
    value = values[row]
    return read(value) if value.is_valid else ""


def _rows_at_a_time(columns: Sequence[PageSizes]) -> int:
    largest = sum(column.largest for column in columns)
    if largest > _PAGES_BYTES:
        raise TableUnreadable(
            f"its pages take {largest:,} bytes at a time, at most {_PAGES_BYTES:,} are read: "
            "write it with smaller pages or row groups"
        )
    fitting = (
        rows for rows in _BATCH_ROWS if sum(column.of_rows(rows) for column in columns) <= _BATCH_BYTES
    )
    return next(fitting, 1)


@contextmanager
def _told() -> Iterator[None]:
    """Whatever pyarrow and the file raise is said of the file."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TableUnreadable(f"it is damaged, or no table: {why[:500]}") from error

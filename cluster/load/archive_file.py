"""An archive's file, read at any place by whoever asks: it keeps no position."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cluster.load.members import unreadable
from cluster.load.system_errors import waited_for

_AHEAD = 1 << 18


class ArchiveFile:
    """An open file. Calls raise `StoreUnavailable` when the system does not give it now, and `OSError` when
    it will not give it at all."""

    def __init__(self, path: Path) -> None:
        try:
            with waited_for(path):
                self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(path, error.strerror) from error
        self._path = path

    def close(self) -> None:
        """Once."""
        os.close(self._file)

    def status(self) -> os.stat_result:
        """What the system says of it."""
        with waited_for(self._path):
            return os.fstat(self._file)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.status().st_size

    def read(self, at: int, count: int) -> bytes:
        """So many bytes from there on, or those that there are."""
        pieces: list[bytes] = []
        with waited_for(self._path):
            while count and (piece := os.pread(self._file, count, at)):
                pieces.append(piece)
                at, count = at + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def data_from(self, at: int) -> int | None:
        """The first place from there on that is no hole of the file."""
        with waited_for(self._path):
            try:
                return os.lseek(self._file, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return None
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that does not tell
                    return at
                raise


class Ahead:
    """Small pieces of a file, asked for one behind the other, read many at a time."""

    def __init__(self, file: ArchiveFile) -> None:
        self._file = file
        self._start = 0
        self._data = b""

    def read(self, at: int, count: int) -> bytes:
        """As `ArchiveFile.read`."""
        start = at - self._start
        if start < 0 or start + count > len(self._data):
            self._start, self._data = at, self._file.read(at, max(count, _AHEAD))
            start = 0
        return self._data[start : start + count]

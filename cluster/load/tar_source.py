"""An uncompressed tar file as a source: listed by its headers, read in place."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from cluster.load.members import Member, Refusal, refused, unreadable

_CHUNK = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class TarSource:
    """`Source` over the regular files of a tar archive, in its own order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes]

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise unreadable(self._path, error.strerror) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def members(self) -> Iterator[Member]:
        """See `Source`."""
        total = os.fstat(self._file.fileno()).st_size
        self._file.seek(0)
        end = 0
        try:
            # Names as bytes that need not be UTF-8; headers are read one by one, nothing is kept.
            with tarfile.open(fileobj=self._file, mode="r:", errors="surrogateescape") as archive:
                while (found := archive.next()) is not None:
                    cast("Any", archive).members.clear()
                    end = archive.offset
                    if not found.isdir():
                        yield _member(found, total)
        except tarfile.TarError as error:
            if not end:
                raise unreadable(self._path, self._why_not(error)) from error
            if end <= total:  # else the last member has said so
                yield _rest_lost(end, str(error))
            return
        # tarfile ends quietly at a broken header, and at the end mark of the first of two joined archives.
        if (more := self._first_byte(end)) is not None:
            yield _rest_lost(more, "there is more, which is no member")

    def read(self, member: Member, most: int) -> bytes:
        """See `Source`."""
        try:
            self._file.seek(member.offset)
            data = self._file.read(min(member.size, most + 1))
        except OSError as error:
            raise refused(Refusal.DAMAGED, f"the archive cannot be read: {error.strerror}") from error
        if len(data) < min(member.size, most + 1):
            raise refused(Refusal.TRUNCATED, "the archive ends before the photo does")
        return data

    def _why_not(self, error: Exception) -> str:
        self._file.seek(0)
        start = self._file.read(8)
        for magic, tool in _COMPRESSED.items():
            if start.startswith(magic):
                return f"it is compressed, and parts of it cannot be read alone; {tool} it"
        return f"it is no tar file ({error})"

    def _first_byte(self, start: int) -> int | None:
        """Where the first byte is that is not zero, from there on."""
        self._file.seek(start)
        while chunk := self._file.read(_CHUNK):
            if rest := chunk.lstrip(b"\0"):
                return start + len(chunk) - len(rest)
            start += len(chunk)
        return None

    def state(self) -> str:
        """See `Source`."""
        status = os.fstat(self._file.fileno())
        return f"tar {status.st_size} {status.st_mtime_ns}"


def _member(found: tarfile.TarInfo, total: int) -> Member:
    if found.issym() or found.islnk():
        return Member(found.name, 0, refusal=Refusal.LINK, why="links are not followed")
    if not found.isreg() or found.issparse():
        return Member(found.name, 0, refusal=Refusal.SPECIAL, why="a device, a pipe or a file with holes")
    if found.offset_data + found.size > total:
        return Member(
            found.name, found.size, refusal=Refusal.TRUNCATED, why="the archive ends before the photo does"
        )
    return Member(found.name, found.size, offset=found.offset_data)


def _rest_lost(end: int, why: str) -> Member:
    return Member(
        f"(byte {end})",
        0,
        offset=end,
        refusal=Refusal.REST_LOST,
        why=f"the archive is damaged at byte {end}: {why}",
    )

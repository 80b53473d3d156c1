"""An uncompressed tar file as a source: listed by its headers, read in place."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.load.archive_file import ArchiveFile
from cluster.load.members import Member, Refusal, named, refused, rest_lost, unreadable
from cluster.load.tar_headers import Header, HeaderBroken, read_header

_CHUNK = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class TarSource:
    """`Source` over the regular files of a tar archive, in its own order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: ArchiveFile

    def __enter__(self) -> Self:
        self._file = ArchiveFile(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def members(self) -> Iterator[Member]:
        """See `Source`."""
        at = 0
        try:
            total = self._file.size
            while (found := read_header(self._file, at, total)) is not None:
                if found.kind != tarfile.DIRTYPE:
                    yield _member(found, total)
                at = found.after
            # The end mark may be that of the first of two joined archives.
            if (more := self._first_byte(min(at, total))) is not None:
                yield rest_lost(more, "there is more, which is no member")
        except (HeaderBroken, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            if not at:
                raise unreadable(self._path, self._why_not(why)) from error
            yield rest_lost(at, str(why))

    def read(self, member: Member, most: int) -> bytes:
        """See `Source`."""
        try:
            self._hold(member)
            data = self._file.read(member.offset, min(member.size, most + 1))
        except OSError as error:
            raise refused(Refusal.DAMAGED, f"the archive cannot be read: {error.strerror}") from error
        if len(data) < min(member.size, most + 1):
            raise refused(Refusal.TRUNCATED, "the archive ends before the photo does")
        return data

    def _hold(self, member: Member) -> None:
        """Refuse a member whose headers are no longer where they were: the bytes there may be another's."""
        if not member.version:
            return
        try:
            found = read_header(self._file, member.offset + member.size - member.packed, self._file.size)
        except HeaderBroken:
            found = None
        if found is None or (found.data, found.size, found.digest) != (
            member.offset,
            member.size,
            member.version,
        ):
            raise refused(
                Refusal.CHANGED, "the archive has something else in its place than when the load was planned"
            )

    def _why_not(self, why: str | None) -> str:
        try:
            start = self._file.read(0, 8)
        except OSError:
            start = b""
        for magic, tool in _COMPRESSED.items():
            if start.startswith(magic):
                return f"it is compressed, and parts of it cannot be read alone; {tool} it"
        return f"it is no tar file ({why})"

    def _first_byte(self, start: int) -> int | None:
        """Where the first byte is that is not zero, from there on."""
        at = self._file.data_from(start)
        while at is not None and (chunk := self._file.read(at, _CHUNK)):
            if rest := chunk.lstrip(b"\0"):
                return at + len(chunk) - len(rest)
            at = self._file.data_from(at + len(chunk))
        return None

    def state(self) -> str:
        """See `Source`."""
        status = self._file.status()
        return f"tar {status.st_size} {status.st_mtime_ns}"


def _member(found: Header, total: int) -> Member:
    if found.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        return named(found.name, 0, refusal=Refusal.LINK, why="links are not followed")
    if not found.regular:
        why = "a device, a pipe or a file with holes"
        return named(found.name, 0, refusal=Refusal.SPECIAL, why=why)
    if found.wrong:
        return named(found.name, found.size, refusal=Refusal.DAMAGED, why=found.wrong)
    if found.data + found.size > total:
        why = "the archive ends before the photo does"
        return named(found.name, found.size, refusal=Refusal.TRUNCATED, why=why)
    return named(
        found.name,
        found.size,
        offset=found.data,
        packed=found.data - found.start + found.size,
        version=found.digest,
    )

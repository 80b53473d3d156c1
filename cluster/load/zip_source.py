"""A zip file as a source: listed by its directory, each member read in place and alone."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.load.archive_file import ArchiveFile
from cluster.load.members import Member, Refusal, named, refused, rest_lost, settled_name, unreadable
from cluster.load.zip_directory import DirectoryBroken, Entry, entries

_LOCAL = struct.Struct("<4s5H3L2H")  # signature, ..., bytes of the name, of the extra field (APPNOTE 4.3.7)
_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNIX = 3


class ZipSource:
    """`Source` over the files of a zip archive, in the order of its directory.

    A member is found by its place, not by its name: a directory of a million names is read once, where the
    load is planned, and not by everyone who reads a part.
    """

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
        listed = False
        try:
            for found in entries(self._file):
                if not found.name.endswith(b"/"):
                    yield _member(found)
                listed = True
        except DirectoryBroken as error:
            if not listed:
                raise unreadable(self._path, f"it is no whole zip file: {error}") from error
            yield rest_lost(error.at, str(error))
        except OSError as error:
            raise unreadable(self._path, error.strerror) from error

    def read(self, member: Member, most: int) -> bytes:
        """See `Source`."""
        try:
            at = self._data_of(member)
            packed = self._file.read(at, min(member.packed, 2 * (most + 1) if member.method else most + 1))
        except OSError as error:
            raise refused(Refusal.DAMAGED, f"the archive cannot be read: {error.strerror}") from error
        if member.method == zipfile.ZIP_STORED:
            data = packed
        else:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most + 1)
            except zlib.error as error:
                raise refused(Refusal.DAMAGED, f"the packed photo is damaged: {error}") from error
        if len(data) > most:
            return data[: most + 1]
        if len(data) < member.size:
            raise refused(Refusal.TRUNCATED, "the archive has less of the photo than it says")
        if len(data) > member.size or zlib.crc32(data) != member.checksum:
            raise refused(Refusal.DAMAGED, "the photo's checksum is not what the archive says")
        return data

    def _data_of(self, member: Member) -> int:
        """Where the member's bytes are. What its directory says was not held to this place when the load was
        planned: whether the archive was damaged, or exchanged since, cannot be told."""
        header = self._file.read(member.offset, _LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(_SIGNATURE):
            raise refused(Refusal.DAMAGED, "the archive's directory names a place without a file")
        *_, name_size, extra_size = _LOCAL.unpack(header)
        data = member.offset + _LOCAL.size + int(name_size) + int(extra_size)
        name = self._file.read(member.offset + _LOCAL.size, name_size)
        if settled_name(_name(name))[0] != settled_name(member.name)[0]:
            raise refused(Refusal.DAMAGED, "the archive's directory names a place that has another file")
        return data

    def state(self) -> str:
        """See `Source`."""
        status = self._file.status()
        return f"zip {status.st_size} {status.st_mtime_ns}"


def _name(raw: bytes) -> str:
    """As bytes that need not be UTF-8, whatever the archive says they are."""
    name = raw.decode("utf-8", "surrogateescape")
    return name if "/" in name else name.replace("\\", "/")  # as some tools write it, against the format


def _member(found: Entry) -> Member:
    name = _name(found.name)
    mode = found.attributes >> 16 if found.system == _UNIX else 0
    if stat.S_ISLNK(mode):
        return named(name, 0, refusal=Refusal.LINK, why="links are not followed")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return named(name, 0, refusal=Refusal.SPECIAL, why="a device, pipe or socket")
    if found.wrong:
        reason = Refusal.COMPRESSION if found.too_new else Refusal.DAMAGED
        return named(name, found.size, refusal=reason, why=found.wrong)
    if found.flags & _ENCRYPTED:
        why = "it wants a password; decrypt the archive"
        return named(name, found.size, refusal=Refusal.ENCRYPTED, why=why)
    if found.method not in _METHODS:
        why = f"packed by method {found.method}; only stored and deflated files are read"
        return named(name, found.size, refusal=Refusal.COMPRESSION, why=why)
    return named(
        name,
        found.size,
        offset=found.offset,
        packed=found.packed,
        method=found.method,
        checksum=found.checksum,
    )

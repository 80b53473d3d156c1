"""A zip file as a source: listed by its directory, each member read in place and alone."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cluster.load.members import Member, Refusal, refused, unreadable

_LOCAL = struct.Struct("<4s5H3L2H")  # signature, ..., bytes of the name, of the extra field (APPNOTE 4.3.7)
_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED, _UTF8 = 1, 1 << 11
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNIX = 3


class ZipSource:
    """`Source` over the files of a zip archive, in the order of its directory.

    A member is found by its place, not by its name: a directory of a million names is read once, where the
    load is planned, and not by everyone who reads a part.
    """

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
        try:
            with zipfile.ZipFile(self._file) as archive:
                for found in archive.infolist():
                    if not found.is_dir():
                        yield _member(found)
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
            raise unreadable(self._path, f"it is no whole zip file ({error})") from error

    def read(self, member: Member, most: int) -> bytes:
        """See `Source`."""
        try:
            self._file.seek(member.offset)
            header = self._file.read(_LOCAL.size)
            if len(header) < _LOCAL.size or not header.startswith(_SIGNATURE):
                raise refused(Refusal.DAMAGED, "the archive's directory names a place without a file")
            *_, name, extra = _LOCAL.unpack(header)
            self._file.seek(name + extra, os.SEEK_CUR)
            packed = self._file.read(min(member.packed, 2 * (most + 1)) if member.method else most + 1)
        except OSError as error:
            raise refused(Refusal.DAMAGED, f"the archive cannot be read: {error.strerror}") from error
        if member.method == zipfile.ZIP_STORED:
            data = packed[: member.packed]
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

    def state(self) -> str:
        """See `Source`."""
        status = os.fstat(self._file.fileno())
        return f"zip {status.st_size} {status.st_mtime_ns}"


def _member(found: zipfile.ZipInfo) -> Member:
    name = found.orig_filename
    if not found.flag_bits & _UTF8:  # bytes of no known encoding, which zipfile reads as code page 437
        name = name.encode("cp437").decode("utf-8", "surrogateescape")
    if "/" not in name:
        name = name.replace("\\", "/")  # as some tools write it, against the format
    mode = found.external_attr >> 16 if found.create_system == _UNIX else 0
    if stat.S_ISLNK(mode):
        return Member(name, 0, refusal=Refusal.LINK, why="links are not followed")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Member(name, 0, refusal=Refusal.SPECIAL, why="a device, pipe or socket")
    if found.flag_bits & _ENCRYPTED:
        return Member(
            name, found.file_size, refusal=Refusal.ENCRYPTED, why="it wants a password; decrypt the archive"
        )
    if found.compress_type not in _METHODS:
        return Member(
            name,
            found.file_size,
            refusal=Refusal.COMPRESSION,
            why=f"packed by method {found.compress_type}; only stored and deflated files are read",
        )
    return Member(
        name,
        found.file_size,
        offset=found.header_offset,
        packed=found.compress_size,
        method=found.compress_type,
        checksum=found.CRC,
    )

"""The directory of a zip archive, entry by entry: one that makes no sense costs itself, not the archive.

`zipfile` reads the whole directory into memory, and refuses all of it for one entry (APPNOTE 4.3 and 4.5).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cluster.load.archive_file import Ahead, ArchiveFile

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LONGEST_COMMENT = 0xFFFF
_IN_EXTRA = 0xFFFFFFFF  # a number that stands in the extra field for zip64
_ZIP64 = 1
_NEWEST = 63  # version of the format, in tenths: later ones may mean other things by the same bytes
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST_SIZE = (1 << 63) - 1
_MOST_PACKED_IN_ONE = 1032  # times that deflating can make something smaller


class DirectoryBroken(Exception):
    """From a place of the archive on nothing of the directory can be read."""

    def __init__(self, why: str, at: int = 0) -> None:
        super().__init__(why)
        self.at = at


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, or folder, as the directory has it."""

    name: bytes
    system: int  # what made it
    flags: int
    method: int
    checksum: int
    packed: int  # bytes
    size: int  # bytes
    attributes: int
    offset: int  # of its local header
    wrong: str = ""  # why what is said of it cannot be so
    too_new: bool = False


def entries(file: ArchiveFile) -> Iterator[Entry]:
    """All of them, in the directory's order. Raises `DirectoryBroken`."""
    total = file.size
    at, end, moved = _place(file, total)
    ahead = Ahead(file)
    while at < end:
        head = ahead.read(at, _ENTRY.size)
        if len(head) < _ENTRY.size or not head.startswith(b"PK\1\2"):
            raise DirectoryBroken("its directory is damaged", at)
        fields = _ENTRY.unpack(head)
        name_size, extra_size, comment_size = fields[10:13]
        if at + _ENTRY.size + name_size + extra_size > end:
            raise DirectoryBroken("its directory is damaged", at)
        texts = ahead.read(at + _ENTRY.size, name_size + extra_size)
        yield _entry(fields, texts[:name_size], texts[name_size:], moved, total)
        at += _ENTRY.size + name_size + extra_size + comment_size


def _place(file: ArchiveFile, total: int) -> tuple[int, int, int]:
    """Where the directory begins and ends, and by how much all is moved by what stands before the archive."""
    window = max(0, total - _LONGEST_COMMENT - _END.size)
    tail = file.read(window, total - window)
    found = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    if found < 0:
        raise DirectoryBroken("it was cut off: its directory, which ends a zip file, is missing")
    end = window + found
    _, disk, *_, size, offset, _ = _END.unpack(tail[found : found + _END.size])
    locator = file.read(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size + _END64.size else b""
    if locator.startswith(b"PK\6\7"):
        end -= _LOCATOR.size + _END64.size
        end64 = _END64.unpack(file.read(end, _END64.size))
        if end64[0] != b"PK\6\6":
            raise DirectoryBroken("the end of its directory is damaged")
        disk, size, offset = end64[4], end64[8], end64[9]
    if disk:
        raise DirectoryBroken("it is one of several pieces; join them")
    start = end - size
    if start < 0 or offset > start:
        raise DirectoryBroken("it is incomplete: its directory does not fit into it")
    return start, end, start - offset


def _entry(fields: tuple[int, ...], name: bytes, extra: bytes, moved: int, total: int) -> Entry:
    _, made, needs, flags, method, _, _, checksum, packed, size, _, _, _, _, _, attributes, offset = fields
    found = Entry(name, made >> 8, flags, method, checksum, packed, size, attributes, offset)
    try:
        size, packed, offset = _long_numbers(extra, (size, packed, offset))
    except (IndexError, ValueError):
        return replace(found, size=0, wrong="its extra field is damaged")
    if needs & 0xFF > _NEWEST:
        tenths = needs & 0xFF
        return replace(found, size=0, too_new=True, wrong=f"version {tenths / 10} of the format is not known")
    offset += moved
    wrong = ""
    if size > _MOST_SIZE or (method in _READ and size > (packed + 1) * _MOST_PACKED_IN_ONE):
        wrong = "it is said to be larger than what is packed can be"
    elif offset + packed > total:
        wrong = "it is said to lie beyond the archive's end"
    if wrong:
        return replace(found, size=0, wrong=wrong)
    return replace(found, size=size, packed=packed, offset=offset)


def _long_numbers(extra: bytes, numbers: tuple[int, int, int]) -> tuple[int, int, int]:
    """The numbers, those that are too large for their place from the extra field."""
    at = 0
    while at + 4 <= len(extra):  # less is padding
        kind, count = struct.unpack_from("<2H", extra, at)
        at += 4
        if at + count > len(extra):
            raise ValueError
        if kind == _ZIP64:
            long = [one for (one,) in struct.iter_unpack("<Q", extra[at : at + count // 8 * 8])]
            size, packed, offset = (long.pop(0) if one == _IN_EXTRA else one for one in numbers)
            return size, packed, offset
        at += count
    return numbers

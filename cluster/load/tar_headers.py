"""The headers of a tar archive, member by member, in bounded memory and time whatever they say.

`tarfile` reads a header block; from block to block is walked here. Its own walk holds headers of any size in
memory, calls itself for each that another follows, and is sent back, or beyond all bounds, by hostile sizes.
"""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass, field

from cluster.load.archive_file import ArchiveFile
from cluster.load.members import MOST_NAME_BYTES

_BLOCK = tarfile.BLOCKSIZE
_MOST_PAX = 1 << 20  # bytes of an extended header that are read; real ones have some hundred
_MOST_SIZE = (1 << 63) - 1  # as files can have, and databases keep
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
# Said of the archive, or of what a link leads to: of no use here, so it is not even read.
_SKIPPED = (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)


class HeaderBroken(Exception):
    """Where a header should be is none that makes sense: what lies behind it cannot be found."""


@dataclass(frozen=True, slots=True)
class Header:
    """A member by its headers."""

    name: str  # one of too many bytes is cut behind the first that are
    kind: bytes  # the type, as `tarfile` names them
    start: int  # of the first header
    data: int  # where its bytes are
    size: int
    after: int  # where the next header is
    digest: str  # of the headers
    holes: bool  # the file is packed without its holes
    wrong: str  # why it cannot be said whose header it is; empty: it can

    @property
    def regular(self) -> bool:
        """Whether it is a file whose bytes are all there."""
        return self.kind in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) and not self.holes


@dataclass(slots=True)
class _Said:
    """What extended headers say of the member that follows them."""

    name: bytes = b""
    size: int | None = None
    holes: bool = False
    wrong: str = ""
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)


def read_header(file: ArchiveFile, start: int, total: int) -> Header | None:
    """The member whose headers begin at `start`, in an archive of `total` bytes; None where it ends.

    Raises `HeaderBroken`. What it returns is always behind `start`."""
    said = _Said()
    at = start
    while True:
        block = file.read(at, _BLOCK) if at < total else b""
        if at == start and (block or start) and not block.strip(b"\0"):
            return None
        said.hash.update(block)
        found = _parsed(block)
        at += _BLOCK
        if found.type in _PAX:
            _read_pax(file, at, found.size, said)
        elif found.type == tarfile.GNUTYPE_LONGNAME:
            said.name = file.read(at, min(found.size, MOST_NAME_BYTES + 1)).partition(b"\0")[0]
            said.hash.update(said.name)
        elif found.type not in _SKIPPED:
            return _header(file, found, block, start=start, data=at, said=said)
        at += _padded(found.size)


def _parsed(block: bytes) -> tarfile.TarInfo:
    try:
        found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise HeaderBroken(str(error)) from error
    if not 0 <= found.size <= _MOST_SIZE:
        raise HeaderBroken("a size that no file has")
    return found


def _header(
    file: ArchiveFile, found: tarfile.TarInfo, block: bytes, *, start: int, data: int, said: _Said
) -> Header:
    name = said.name.decode("utf-8", "surrogateescape") or found.name
    kind = found.type
    if kind == tarfile.AREGTYPE and name.endswith("/"):  # so archives from before there were types have it
        kind = tarfile.DIRTYPE
    size = found.size if said.size is None else said.size
    more = kind == tarfile.GNUTYPE_SPARSE and block[482]
    while more:  # blocks of a list of holes
        block = file.read(data, _BLOCK)
        more, data = len(block) == _BLOCK and block[504], data + _BLOCK
    # Links, folders and devices have no bytes, whatever size they say.
    has_data = kind in tarfile.REGULAR_TYPES or kind not in tarfile.SUPPORTED_TYPES
    return Header(
        name=name,
        kind=kind,
        start=start,
        data=data,
        size=size,
        after=data + (_padded(size) if has_data else 0),
        digest=said.hash.hexdigest()[:16],
        holes=said.holes or kind == tarfile.GNUTYPE_SPARSE,
        wrong=said.wrong,
    )


def _read_pax(file: ArchiveFile, at: int, size: int, said: _Said) -> None:
    """Note what an extended header of POSIX says. Records are `length key=value`, each on a line."""
    said.size, said.holes, said.wrong = None, False, ""
    if size > _MOST_PAX:
        said.wrong = f"its header has {size} bytes, of which at most {_MOST_PAX} are read"
        return
    records = file.read(at, size)
    said.hash.update(records)
    path = holes_path = b""
    place = 0
    while place < len(records) and records[place]:  # zeros: padding that was counted in
        digits, space, _ = records[place : place + 20].partition(b" ")
        end = place + int(digits) if digits.isdigit() else place
        if not space or not place + len(digits) + 1 < end <= len(records) or records[end - 1] != ord("\n"):
            said.wrong = "its extended header is damaged"
            return
        key, equals, value = records[place + len(digits) + 1 : end - 1].partition(b"=")
        if not equals:
            said.wrong = "its extended header is damaged"
            return
        if key == b"path":
            path = value
        elif key == b"size":
            said.size = _size(value)
        elif key == b"GNU.sparse.name":
            holes_path = value
        said.holes |= key.startswith(b"GNU.sparse.")
        place = end
    said.name = holes_path or path or said.name


def _size(value: bytes) -> int | None:
    """A size in decimal digits; None where the header's own is to count."""
    if not value:
        return None
    if not value.isdigit() or len(value) > 19 or int(value) > _MOST_SIZE:
        raise HeaderBroken("an extended header names a size that no file has")
    return int(value)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK

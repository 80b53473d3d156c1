"""Where the photos of a load come from: a source lists its members, and any one of them can be read alone.

Members are never unpacked to a path: their names are words for people and for the record they name, nothing
that is opened. Every member is listed once, in an order that depends on the source alone; what cannot be a
photo is listed too, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from homeward.errors import InvalidInput


class Refusal(StrEnum):
    """Why a member cannot be read as a photo, or could not be."""

    LINK = "MEMBER_IS_LINK"
    SPECIAL = "MEMBER_IS_NO_FILE"
    ENCRYPTED = "MEMBER_ENCRYPTED"
    COMPRESSION = "MEMBER_COMPRESSION_UNKNOWN"
    TRUNCATED = "MEMBER_TRUNCATED"
    DAMAGED = "MEMBER_DAMAGED"
    MISSING = "MEMBER_MISSING"
    CHANGED = "MEMBER_CHANGED"
    WITHHELD = "MEMBER_WITHHELD"  # the store has it and does not give it
    REST_LOST = "ARCHIVE_DAMAGED"  # what came behind this place of the archive is not known


class MemberRefused(InvalidInput):
    """A member that cannot be read; the code is one of `Refusal`."""

    code = "MEMBER_REFUSED"

    @property
    def reason(self) -> Refusal:
        """Why."""
        return Refusal(self.code)


def refused(reason: Refusal, message: str) -> MemberRefused:
    """The error for one member."""
    return MemberRefused(message, code=reason)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a source, or what stands where one should be."""

    name: str  # with / between folders; as the source has it, undecodable bytes escaped as surrogates
    size: int  # bytes of the photo
    offset: int = 0  # where the archive has it
    packed: int = 0  # bytes it takes there, where that is another number
    method: int = 0  # how it is packed: a number of the archive's format
    checksum: int = 0  # as the archive has it; 0: none
    refusal: Refusal | None = None  # it is not read
    why: str = ""
    version: str = ""  # what tells it from another of its name and size; empty: nothing does

    @property
    def shown(self) -> str:
        """The name for people, logs and files: valid Unicode without control characters."""
        text = self.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class Source(Protocol):
    """A place that holds photos. A context: files stay open inside it. Calls block; for one thread."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def members(self) -> Iterator[Member]:
        """All files, in an order that depends on the source alone. Raises `InvalidInput`
        (SOURCE_UNREADABLE) when it cannot be listed at all, `StoreUnavailable` when it does not answer."""
        ...

    def read(self, member: Member, most: int) -> bytes:
        """The member's bytes; of one of more than `most` bytes that many and one more, which is enough to
        refuse it. Raises `MemberRefused`, and `StoreUnavailable` when the source does not answer."""
        ...

    def state(self) -> str:
        """What another source, or this one changed, does not say: a load is not resumed from those."""
        ...


def unreadable(where: object, why: object) -> InvalidInput:
    """The source as a whole cannot be used."""
    return InvalidInput(f"{where} cannot be read: {why}", code="SOURCE_UNREADABLE", field="source")

"""Where the photos of a load come from: a source lists its members, and any one of them can be read alone.

Members are never unpacked to a path: their names are words for people and for the record they name, nothing
that is opened. Every member is listed once, in an order that depends on the source alone; what cannot be a
photo is listed too, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from homeward.errors import InvalidInput

MOST_NAME_BYTES = 4096  # as a path of Linux can have
_KEPT = 255  # characters of a name that has more, for people


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
    NAME = "MEMBER_NAME_REFUSED"  # it leads out of the archive, or is longer than a path can be
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

    name: str  # with / between folders, normal except in S3; undecodable bytes escaped as surrogates
    size: int  # bytes of the photo
    offset: int = 0  # where the archive has it
    packed: int = 0  # bytes it takes there, with what else the format counts in, if that is another number
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


def normal_name(name: str) -> str:
    """The name without steps that lead nowhere: `./a//b` is `a/b`. A step back (`..`) stays."""
    return "/".join(step for step in name.split("/") if step not in ("", "."))


def named(
    name: str,
    size: int,
    *,
    offset: int = 0,
    packed: int = 0,
    method: int = 0,
    checksum: int = 0,
    version: str = "",
    refusal: Refusal | None = None,
    why: str = "",
) -> Member:
    """A member of an archive by the name that it has there: made normal, or refused with the reason."""
    plain, wrong = settled_name(name)
    member = Member(plain, size, offset, packed, method, checksum, refusal, why, version)
    return replace(member, refusal=Refusal.NAME, why=wrong) if wrong and refusal is None else member


def settled_name(name: str) -> tuple[str, str]:
    """The name that a member of an archive goes by, and why it is no path below the archive; empty: it is."""
    if (count := len(name.encode("utf-8", "surrogateescape"))) > MOST_NAME_BYTES:
        return name[:_KEPT], f"its name has at least {count} bytes; at most {MOST_NAME_BYTES} are allowed"
    plain = normal_name(name)
    if name.startswith("/"):
        return name, "its name begins with /, which is outside of the archive"
    if ".." in plain.split("/"):
        return plain, "its name has a step .., which leads out of its folder"
    return (plain, "") if plain else (name, "its name says nothing")


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


def rest_lost(start: int, why: str) -> Member:
    """What stands for the rest of an archive that is damaged from there on."""
    return Member(
        f"(byte {start})",
        0,
        offset=start,
        refusal=Refusal.REST_LOST,
        why=f"the archive is damaged at byte {start}: {why}",
    )

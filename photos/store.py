"""Where photo bytes live: one small protocol, run by one contract suite on every store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from homeward.errors import Corrupt, InvalidInput
from homeward.ids import photo_sha256

AGENCY_BYTES_MAX = 80
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_ENCODED = re.compile(r"(?:[a-z0-9_-]|%[0-9a-f]{2})+")


class PhotoStore(Protocol):
    """Photos by agency and SHA-256 of their bytes. Calls block; every method is thread-safe.

    The contract, which `tests/photos/contract.py` runs on every implementation:

    * a photo is written whole or not at all: no reader, and no listing, ever sees a part of one,
      whatever dies;
    * when `put` returns, the photo survives a crash of this process and of its machine; when
      `delete` returns, it does not come back;
    * agencies are separate: the same bytes of two agencies are two photos;
    * an agency is any text of 1 to 80 bytes in UTF-8, else `InvalidInput` (AGENCY_INVALID); a
      sha256 is 64 lower-case hex digits, else `InvalidInput` (ID_INVALID). Neither can name
      anything outside of the store;
    * a store that does not answer, is full or refuses us raises `StoreUnavailable` with what to do.

    A `put` and a `delete` of the same photo at the same time end in either order; the catalogue's
    intents (`Catalogue.begin_intents`, `Catalogue.erase`) decide which may run.
    """

    def put(self, agency: str, data: bytes) -> str:
        """Store one photo and return its sha256. Again with the same bytes: nothing changes."""
        ...

    def get(self, agency: str, sha256: str) -> bytes:
        """The photo's bytes, checked: `NotFound` without one, `Corrupt` if they differ."""
        ...

    def exists(self, agency: str, sha256: str) -> bool:
        """Whether the photo is there (its bytes are not read)."""
        ...

    def delete(self, agency: str, sha256: str) -> bool:
        """Remove the photo; whether there was one. Again: False, and no error."""
        ...

    def list(self, agency: str, after: str | None = None, limit: int = 1000) -> Sequence[str]:
        """Up to `limit` sha256 of the agency in ascending order, those beyond `after` only.

        Fewer than `limit` means that these were the last."""
        ...

    def agencies(self) -> Sequence[str]:
        """Agencies with at least one photo, sorted."""
        ...

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """Remove what crashed writers left behind, if it is older than that; how many there were."""
        ...


def encode_agency(agency: str) -> str:
    """The agency as one name that is safe in a path and in an object key on any system.

    Lower-case letters, digits, - and _ stand for themselves, every other byte of the UTF-8 becomes
    %xx: no separator, no dot, and no two agencies that differ only in case meet on a file system
    that ignores it. At most 240 characters.
    """
    try:
        raw = agency.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput("the agency is no valid text", code="AGENCY_INVALID", field="agency") from error
    if not 1 <= len(raw) <= AGENCY_BYTES_MAX:
        raise InvalidInput(
            f"an agency is named by 1 to {AGENCY_BYTES_MAX} bytes of UTF-8, not {len(raw)}",
            code="AGENCY_INVALID",
            field="agency",
        )
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in raw)


def decode_agency(name: str) -> str | None:
    """The agency behind an encoded name; None if `encode_agency` never made it."""
    if not _ENCODED.fullmatch(name):
        return None
    raw = re.sub(rb"%([0-9a-f]{2})", lambda hit: bytes([int(hit[1], 16)]), name.encode("ascii"))
    try:
        agency = raw.decode("utf-8")
        return agency if encode_agency(agency) == name else None
    except (UnicodeDecodeError, InvalidInput):
        return None


def check_bytes(agency: str, sha256: str, data: bytes) -> bytes:
    """Return `data` if it has that checksum, else raise `Corrupt`."""
    if photo_sha256(data) != sha256:
        raise Corrupt(
            "a stored photo's bytes no longer have its checksum; restore it from a backup "
            "or enrol the photo again",
            code="PHOTO_CHECKSUM",
            agency=agency,
            sha256=sha256,
        )
    return data


def check_limit(limit: int) -> int:
    """Return `limit` if a page can have that many entries, else raise `InvalidInput`."""
    if limit < 1:
        raise InvalidInput("a page holds at least one entry", field="limit")
    return limit

"""Identifiers: pure functions of what they name, so that every write is an idempotent upsert.

Each id is the first 128 bits of SHA-256 over a domain tag and the length-prefixed UTF-8 parts,
as 32 lower-case hex digits. The length prefix keeps ("ab", "c") and ("a", "bc") apart.
"""

from __future__ import annotations

import hashlib
import re

from homeward.errors import InvalidInput
from homeward.types import RecordKey

_ID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _digest(domain: str, *parts: str) -> str:
    state = hashlib.sha256()
    for part in (domain, *parts):
        raw = part.encode("utf-8")
        state.update(len(raw).to_bytes(8, "big"))
        state.update(raw)
    return state.hexdigest()[:32]


def record_id(key: RecordKey) -> str:
    """Id of one child's record in one gallery of one agency."""
    return _digest("homeward/record", key.agency, key.gallery, key.external_reference)


def face_id(record: str, photo_sha256: str, model_id: str, ordinal: int) -> str:
    """Id of one face row; one photo under two records gives two rows."""
    return _digest("homeward/face", record, photo_sha256, model_id, str(ordinal))


def photo_sha256(data: bytes) -> str:
    """A photo is named by the SHA-256 of its bytes, 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def check_id(value: str, field: str) -> str:
    """Return `value` if it is a 128-bit id, else raise `InvalidInput` naming the field."""
    if not _ID.fullmatch(value):
        raise InvalidInput(f"{field} must be 32 lower-case hex digits", code="ID_INVALID", field=field)
    return value


def check_sha256(value: str, field: str) -> str:
    """Return `value` if it is a SHA-256, else raise `InvalidInput` naming the field."""
    if not _SHA256.fullmatch(value):
        raise InvalidInput(f"{field} must be 64 lower-case hex digits", code="ID_INVALID", field=field)
    return value

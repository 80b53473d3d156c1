"""Page tokens: where a listing goes on, bound to its filters.

A token names the last record id seen, so inserts and deletes between pages neither repeat nor skip
other records. The checksum refuses tokens that were altered, or used with other filters.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from homeward.errors import InvalidInput
from homeward.ids import check_id

_CHECK_BYTES = 12


def page_token(after: str, filters: object) -> str:
    """The token for the records beyond `after`; `filters` is any JSON value that names the listing."""
    raw = bytes.fromhex(after)
    return base64.urlsafe_b64encode(raw + _check(raw, filters)).decode("ascii").rstrip("=")


def page_after(token: str, filters: object) -> str:
    """The record id a token stands for, or `InvalidInput` (PAGE_TOKEN_INVALID)."""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        raw, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
        if check == _check(raw, filters):
            return check_id(raw.hex(), "page_token")
    except (binascii.Error, ValueError):
        pass
    raise InvalidInput(
        "the page token is not one that this listing gave; list again from the start",
        code="PAGE_TOKEN_INVALID",
        field="page_token",
    )


def _check(raw: bytes, filters: object) -> bytes:
    text = json.dumps(filters, sort_keys=True, ensure_ascii=True).encode("ascii")
    return hashlib.blake2b(raw + text, digest_size=_CHECK_BYTES, person=b"homeward-page").digest()

"""Values of a Parquet column as the texts that a CSV file would have.

What is not exactly one text is refused: a number that lost digits, written as if it had not, is the reference
of another record.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from cluster.load.table import VALUE_BYTES, TableUnreadable, Unread

# Of a scalar of pyarrow that is not null.
Reader: TypeAlias = Callable[[Any], "str | Unread"]

FIXED_BYTES = 4096  # of a value whose type says how long it is
_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
_FLOAT_DIGITS = {16: 11, 32: 24, 64: 53}  # binary: whole numbers of more are not told apart
_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = date(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_DIGITS = 100  # of a decimal; formats allow 76
_NO_DATE = Unread("is a date that no calendar here has")


def reader_of(kind: Any) -> Reader | None:
    """How to read values of a type; None for a type that is no text, number, truth value or date."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _of_dictionary(kind)
    if types.is_timestamp(kind):
        return _of_timestamp(kind)
    if types.is_floating(kind):
        return _of_float(_FLOAT_DIGITS[kind.bit_width])
    readers: list[tuple[bool, Reader]] = [
        (types.is_null(kind), lambda _: ""),
        (types.is_integer(kind), lambda value: str(value.as_py())),
        (types.is_boolean(kind), lambda value: "true" if value.as_py() else "false"),
        (types.is_decimal(kind), _decimal),
        (types.is_date32(kind), lambda value: _day(value.value)),
        (types.is_date64(kind), lambda value: _day(value.value // _DAY_MS)),
        (str(kind) in _TEXTS, _text),
        (types.is_fixed_size_binary(kind) and kind.byte_width <= FIXED_BYTES, _text),
        (getattr(kind, "extension_name", "") == "arrow.uuid", _uuid),
    ]
    return next((reader for is_it, reader in readers if is_it), None)


def names_nobody(kind: Any) -> bool:
    """Of a type whose values cannot tell photos or records apart: many would become one."""
    from pyarrow import types

    return bool(types.is_boolean(kind) or types.is_temporal(kind))


def _text(value: Any) -> str | Unread:
    buffer = value.as_buffer()
    if buffer.size > VALUE_BYTES:
        return Unread(f"has {buffer.size:,} bytes; at most {VALUE_BYTES:,} are read")
    try:
        return bytes(buffer).decode()
    except UnicodeDecodeError as error:
        return Unread(f"holds the byte 0x{error.object[error.start]:02X}, which is no UTF-8")


def _uuid(value: Any) -> str | Unread:
    found = value.as_py()
    return str(found if isinstance(found, UUID) else UUID(bytes=bytes(found)))


def _of_dictionary(kind: Any) -> Reader | None:
    inner = reader_of(kind.value_type)
    if inner is None:
        return None

    def read(value: Any) -> str | Unread:
        at, dictionary = value.index.as_py(), value.dictionary
        if at is None:
            return ""
        if not 0 <= at < len(dictionary):
            raise TableUnreadable("it is damaged: a value is not in its dictionary")
        found = dictionary[at]
        return inner(found) if found.is_valid else ""

    return read


def _of_float(digits: int) -> Reader:
    def read(value: Any) -> str | Unread:
        found = value.as_py()
        if math.isnan(found):
            return ""  # as pandas writes that there is none
        if not math.isfinite(found) or abs(found) > 2**digits or not float(found).is_integer():
            return Unread(f"is the number {found!r}, which does not say how it was written: write it as text")
        return str(int(found))

    return read


def _decimal(value: Any) -> str | Unread:
    found: Decimal = value.as_py()
    if not found.is_finite() or abs(found.adjusted()) > _DIGITS:
        return Unread("is no number that can be written out")
    whole = found.to_integral_value()
    return format(whole if whole == found else found, "f")


def _day(days: int) -> str | Unread:
    try:
        return (_DAY + timedelta(days=days)).isoformat()
    except OverflowError:
        return _NO_DATE


def _of_timestamp(kind: Any) -> Reader:
    """The day in the column's own time zone."""
    zone = _zone(kind.tz) if kind.tz else UTC
    per_second = _PER_SECOND[kind.unit]

    def read(value: Any) -> str | Unread:
        if zone is None:
            return Unread(f"is a time in the zone {str(kind.tz)[:64]!a}, which is not known here")
        try:
            moment = _EPOCH + timedelta(seconds=value.value // per_second)
            return moment.astimezone(zone).date().isoformat()
        except (OverflowError, ValueError):
            return _NO_DATE

    return read


def _zone(name: str) -> tzinfo | None:
    offset = _OFFSET.fullmatch(name)
    try:
        if offset is None:
            return ZoneInfo(name)
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return timezone(ahead if offset[1] == "+" else -ahead)
    except (OSError, ValueError, KeyError):  # no such zone, or a name that is no zone's
        return None

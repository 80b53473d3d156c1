"""Checks of single request fields. Every refusal names the field's path in `details["field"]`.

Texts are normalised to Unicode NFC, so that one name typed on two machines is one name, and lose
nothing else: case, spaces inside and scripts stay as they are.
"""

from __future__ import annotations

import calendar
import math
import re
import unicodedata
from datetime import date

from homeward.errors import InvalidInput
from homeward.types import DateRange

KEY_CHARS = 256
SHORT_CHARS = 256
LONG_CHARS = 4096
REQUEST_ID_CHARS = 128

_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?")
# Names in Persian and in several scripts of India need the joiners; every other invisible format
# character could make two names look the same, or turn the direction of a line on a screen.
_DECOMPOSED = 4  # characters at most that become one in NFC
_MARKS_IN_A_ROW = 30  # as Unicode's stream-safe text has them (UAX #15)
_JOINERS = frozenset("\u200c\u200d")
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def invalid(field: str, message: str) -> InvalidInput:
    """The error for one wrong field."""
    return InvalidInput(f"{field}: {message}", field=field)


def text(value: str, field: str, *, limit: int = SHORT_CHARS, required: bool = False) -> str:
    """`value` in NFC, at most `limit` characters, without control characters or line breaks."""
    if len(value) > _DECOMPOSED * limit:
        raise invalid(field, f"has {len(value)} characters; at most {limit} are kept")
    if _marks_in_a_row(value) > _MARKS_IN_A_ROW:
        raise invalid(field, f"holds more than {_MARKS_IN_A_ROW} marks on one letter")
    normal = unicodedata.normalize("NFC", value)
    if len(normal) > limit:
        raise invalid(field, f"has {len(normal)} characters; at most {limit} are kept")
    for character in normal:
        if unicodedata.category(character) in _REFUSED_CATEGORIES and character not in _JOINERS:
            raise invalid(field, f"holds the character U+{ord(character):04X}, which is not text")
    if required and not any(one.isprintable() and not one.isspace() for one in normal):
        raise invalid(field, "is required")
    return normal


def _marks_in_a_row(value: str) -> int:
    """Their order is what normalising sorts, in the square of their number."""
    if value.isascii():
        return 0
    longest = now = 0
    for character in value:
        now = now + 1 if unicodedata.combining(character) else 0
        longest = max(longest, now)
    return longest


def key_text(value: str, field: str) -> str:
    """A part of a record's key: 1..256 characters that read the same wherever they are shown."""
    normal = text(value, field, limit=KEY_CHARS, required=True)
    if normal != normal.strip():
        raise invalid(field, "begins or ends with a space")
    return normal


def request_id(value: str, field: str = "request_id") -> str:
    """A request id: 1..128 characters, required, since it makes a repeat harmless."""
    if not value:
        raise invalid(field, "is required: make one (a UUID) and use it again when you repeat the call")
    return text(value, field, limit=REQUEST_ID_CHARS, required=True)


def number(value: float, field: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in [low, high]."""
    if not math.isfinite(value):
        raise invalid(field, "is not a finite number")
    if not low <= value <= high:
        raise invalid(field, f"is {value:g}; it must lie between {low:g} and {high:g}")
    return value


def _day(value: str, field: str, *, last: bool) -> date:
    parts = _DATE.fullmatch(value)
    if parts is None:
        raise invalid(field, "is no date: use YYYY-MM-DD, YYYY-MM or YYYY")
    year = int(parts[1])
    month = int(parts[2] or (12 if last else 1))
    try:
        if parts[3] is not None:
            return date(year, month, int(parts[3]))
        return date(year, month, calendar.monthrange(year, month)[1] if last else 1)
    except (ValueError, calendar.IllegalMonthError, IndexError) as error:
        raise invalid(field, "is no day of the calendar") from error


def span(earliest: str, latest: str, verified: bool, field: str) -> DateRange | None:
    """The range between two written dates; one alone means both, none at all is unknown (None)."""
    if not earliest and not latest:
        if verified:
            raise invalid(field, "is marked as verified but gives no date")
        return None
    first = _day(earliest or latest, f"{field}.{'earliest' if earliest else 'latest'}", last=False)
    final = _day(latest or earliest, f"{field}.{'latest' if latest else 'earliest'}", last=True)
    if first > final:
        raise invalid(field, f"begins on {first} and ends before that, on {final}")
    return DateRange(first, final, verified)

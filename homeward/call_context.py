"""The call that is worked on: its id, which links what all processes log of it, and what its log line says.

The id comes with the call or is made when it arrives; it goes along to shards and embedding workers as gRPC
metadata. Work that several calls share carries the ids of all.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

REQUEST_ID_KEY = "x-request-id"
IDS_MAX = 64  # of one shared piece of work; in metadata they stay far below what HTTP/2 headers may have

_ONE = r"[A-Za-z0-9._-]{1,64}"
_ID = re.compile(_ONE)
_IDS = re.compile(rf"{_ONE}(?:,{_ONE}){{0,{IDS_MAX - 1}}}")
_KEY_BYTES = 32
_STREAM_CHARS = 50  # of a stream's id, so that an item's fits as well

Metadata = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class CallContext:
    """One call, or what several share. Its parts add what they know."""

    request_id: str  # several are joined by commas
    case: str = ""  # the keyed hash of the case's reference
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds


_current: ContextVar[CallContext | None] = ContextVar("call", default=None)


def current_ids() -> str:
    """The id of the call that this task or thread works for, or the ids of several; empty outside of any."""
    call = _current.get()
    return "" if call is None else call.request_id


def enter_call(given: object) -> CallContext:
    """A call that arrives, for the task that runs this: with the caller's id if it is well-formed, else with
    a new one."""
    fits = isinstance(given, str) and _ID.fullmatch(given)
    return _enter(given if isinstance(given, str) and fits else secrets.token_hex(8))


def enter_inner_call(given: object) -> CallContext:
    """As `enter_call`, for a call from another process of Homeward's: it is made for several calls, or for
    none, and then has no id."""
    fits = isinstance(given, str) and _IDS.fullmatch(given)
    return _enter(given if isinstance(given, str) and fits else "")


def enter_item(number: int) -> CallContext:
    """One item of the stream that is worked on, for the task that runs this."""
    return _enter(f"{current_ids()[:_STREAM_CHARS]}.{number}")


def _enter(request_id: str) -> CallContext:
    call = CallContext(request_id)
    _current.set(call)
    return call


@contextmanager
def working_for(ids: Iterable[str]) -> Iterator[None]:
    """What this thread does meanwhile it does for these calls."""
    known = dict.fromkeys(one for joined in ids for one in joined.split(",") if one)
    token = _current.set(CallContext(",".join(list(known)[:IDS_MAX])) if known else None)
    try:
        yield
    finally:
        _current.reset(token)


def call_metadata() -> Metadata:
    """What tells another process of Homeward's for whom it is asked."""
    ids = current_ids()
    return ((REQUEST_ID_KEY, ids),) if ids else ()


def note_case(case: str) -> None:
    """The call concerns this case, by its hash."""
    call = _current.get()
    if call is not None:
        call.case = case


def note_stages(seconds: Mapping[str, float]) -> None:
    """So long the stages of this call took, or take yet."""
    call = _current.get()
    if call is not None:
        call.stages = seconds


def metadata_value(metadata: Iterable[Any] | None) -> object:
    """What the caller gave as its id."""
    return dict(metadata or ()).get(REQUEST_ID_KEY, "")


class CaseHash:
    """Names a case in logs without saying which: who has the key can tell, who has the logs cannot."""

    def __init__(self, key: bytes | None = None) -> None:
        """Without a key the names hold for this process alone."""
        self._key = hashlib.sha256(key or secrets.token_bytes(_KEY_BYTES)).digest()

    def __call__(self, reference: str) -> str:
        """16 hex digits."""
        return hashlib.blake2b(reference.encode("utf-8", "replace"), key=self._key, digest_size=8).hexdigest()

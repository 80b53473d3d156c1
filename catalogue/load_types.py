"""Bulk loads as the catalogue knows them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from homeward.errors import InvalidInput

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")  # also a part of the names of documents


class LoadState(StrEnum):
    """What becomes of a load."""

    PLANNING = "planning"  # its sources are being listed; nothing is loaded yet
    LOADING = "loading"
    STOPPED = "stopped"  # its driver gave up and said why; to be resumed
    DONE = "done"  # every photo is accounted for
    CANCELLED = "cancelled"  # what was loaded stays; to be resumed or undone
    UNDOING = "undoing"
    UNDONE = "undone"  # nothing that it brought is left; its outcome files are


@dataclass(frozen=True, slots=True)
class Load:
    """One load."""

    name: str
    state: LoadState
    fence: int
    holder: str  # who drives it, for people; empty: nobody
    heartbeat_at: datetime | None  # when the holder last said that it lives
    spec: str  # what it was started with, as JSON
    parts: int | None  # None: not planned yet
    photos: int | None
    model_id: str  # empty: nothing was loaded yet
    dimension: int
    created_at: datetime
    finished_at: datetime | None
    message: str  # why it stopped, for people

    @property
    def driven(self) -> bool:
        """Whether somebody says to be at work on it."""
        return bool(self.holder)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive a load, until another takes it: commits with an older fence are refused."""

    load: str
    fence: int


@dataclass(frozen=True, slots=True)
class DonePart:
    """One committed part."""

    part: int
    document: str  # name of its outcome file among the photo store's documents
    photos: int  # accounted for
    faces: int  # face rows
    rejected: int  # photos, when it was committed


@dataclass(frozen=True, slots=True)
class LoadSums:
    """What all committed parts of a load come to."""

    parts: int
    photos: int  # accounted for
    faces: int  # face rows
    rejected: int  # photos, when their parts were committed


@dataclass(frozen=True, slots=True)
class Undone:
    """One step of undoing."""

    records: int  # that were taken back or taken apart in this step; 0: nothing is left
    rev: int


def check_load_name(name: str) -> str:
    """Return `name` if a load can have it, else raise `InvalidInput` (LOAD_NAME)."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"a load is named by 1 to 40 of a-z, 0-9, - and _, the first a letter or digit, not {name!r}",
            code="LOAD_NAME",
            field="name",
        )
    return name

"""What passes between gRPC servers and shards beside queries and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from homeward.types import Query
from index.columns import Bool, Columns
from index.merge import Partial


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a server just committed of one record, so that a shard need not read it back."""

    record_id: str
    rev: int
    rows: Columns  # new or changed, all of this record
    removed_faces: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ShardStatus:
    """What a shard says of itself."""

    name: str
    incarnation: str  # another one each time its process starts
    epoch: int  # of the newest shard map that it has read
    held: Bool  # (SLOTS,) the slots that it answers for
    rows: int
    records: int
    rev: int
    lag_seconds: float  # since it last knew that it had all changes
    model_id: str
    dimension: int


class Served(Protocol):
    """A shard as its port sees it. For one event loop.

    Methods raise `Unavailable` with a code when they must not answer: SHARD_STALE (too long without
    the change log), SHARD_FENCED (the shard map does not list this process), SLOTS_NOT_HELD,
    REV_NOT_REACHED; and `Overloaded` for more than it can queue.
    """

    @property
    def model_id(self) -> str:
        """Of the templates."""
        ...

    @property
    def dimension(self) -> int:
        """Components of a template."""
        ...

    async def search(
        self, queries: Sequence[Query], slots: Bool, min_rev: int
    ) -> tuple[Sequence[Partial], int]:
        """What the rows of these slots (SLOTS,) say of each query, at one rev, `min_rev` at least.

        Raises `InvalidInput` and its kinds for queries that make no sense.
        """
        ...

    async def rows(self, record_id: str) -> tuple[Columns, int]:
        """The record's rows, by face id, and the rev at which they were read."""
        ...

    async def push(self, pushed: Sequence[Pushed], rev: int) -> int:
        """Take what was committed, and reach `rev`, reading the change log for what was not told.

        Returns the rev reached, which is less when the change log could not be read in time. Records
        of slots that are not held are not to be kept.
        """
        ...

    def status(self) -> ShardStatus:
        """How the shard is, told even when it must not answer searches."""
        ...

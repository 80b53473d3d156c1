"""What a writer asks of an index; and the index of a process that only writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from index.shard_types import Pushed


class Followed(Protocol):
    """What of an index a writer uses. Both block."""

    def check_loaded(self) -> None:
        """Raise `Unavailable` (INDEX_LOADING) while it cannot answer."""
        ...

    def catch_up(self, own: Sequence[Pushed] = ()) -> int:
        """Have all committed changes in every answer begun after the return; the rev reached."""
        ...


class NoIndex:
    """`Followed` of a process that commits and answers no search: those that do follow the change log."""

    def check_loaded(self) -> None:
        """See `Followed`: there is nothing to load."""

    def catch_up(self, own: Sequence[Pushed] = ()) -> int:  # noqa: ARG002 - the protocol's
        """Nobody is told; the rev is not looked up either."""
        return 0

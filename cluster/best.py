"""The best candidates of a stream, in bounded memory, with a record of what is no longer known."""

from __future__ import annotations

from collections.abc import Collection

from homeward.types import Candidate
from index.merge import rank

Rank = tuple[float, str]  # `index.merge.rank`: the smaller, the further up the list


class Best:
    """Up to `capacity` candidates.

    Whatever ranks up to the horizon is here, unless it was dropped by name; of what ranks behind it
    nothing is known. There is no horizon while nothing had to give way.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: dict[str, Candidate] = {}
        self._horizon: Rank | None = None

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def is_whole(self) -> bool:
        """Whether nothing had to give way."""
        return self._horizon is None

    @property
    def floor(self) -> float:
        """The score below which nothing is taken any more."""
        return -float("inf") if self._horizon is None else -self._horizon[0]

    @property
    def records(self) -> Collection[str]:
        """Whose candidates are here."""
        return self._kept.keys()

    def takes(self, key: Rank) -> bool:
        """Whether a candidate of this rank would be kept."""
        return self._horizon is None or key <= self._horizon

    def add(self, candidate: Candidate) -> None:
        """Keep the candidate if there is room or it ranks before another, which then gives way."""
        if not self.takes(rank(candidate)):
            return
        self._kept[candidate.record_id] = candidate
        if len(self._kept) > self._capacity:
            del self._kept[max(self._kept.values(), key=rank).record_id]
        if len(self._kept) == self._capacity:
            self._horizon = max(map(rank, self._kept.values()))

    def drop(self, record_ids: Collection[str]) -> None:
        """Forget these records. Those that gave way to them do not come back: the horizon stays."""
        for record in record_ids:
            self._kept.pop(record, None)

    def ranked(self) -> list[Candidate]:
        """The candidates, best first."""
        return sorted(self._kept.values(), key=rank)

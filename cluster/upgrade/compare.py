"""The lists of two models side by side: which candidates rank elsewhere, and what became of the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Listed:
    """One candidate of a list."""

    record_id: str
    reference: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model answered for a probe."""

    candidates: tuple[Listed, ...] = ()  # by rank
    error: str = ""  # why there is no list

    def rank_of(self, record_id: str) -> int | None:
        """The record's rank, from 1; None when it is not listed."""
        return next((at for at, one in enumerate(self.candidates, 1) if one.record_id == record_id), None)

    def rank_of_reference(self, reference: str) -> int | None:
        """The rank of the first record with this reference."""
        return next((at for at, one in enumerate(self.candidates, 1) if one.reference == reference), None)


@dataclass(frozen=True, slots=True)
class Move:
    """A candidate's ranks; None: not listed."""

    reference: str
    old: int | None
    new: int | None


@dataclass(frozen=True, slots=True)
class Compared:
    """One probe with both answers."""

    probe: str
    old: Answer
    new: Answer
    mate: str = ""  # the reference of the child in the probe, where that is known

    @property
    def old_rank(self) -> int | None:
        """The mate's rank by the old model."""
        return self.old.rank_of_reference(self.mate) if self.mate else None

    @property
    def new_rank(self) -> int | None:
        """The mate's rank by the new model."""
        return self.new.rank_of_reference(self.mate) if self.mate else None

    @property
    def overlap(self) -> float:
        """The share of candidates that both list, of the longer list."""
        old = {one.record_id for one in self.old.candidates}
        new = {one.record_id for one in self.new.candidates}
        return len(old & new) / max(len(old), len(new), 1)

    @property
    def same_first(self) -> bool:
        """Whether both list the same candidate first, or none."""
        return [one.record_id for one in self.old.candidates[:1]] == [
            one.record_id for one in self.new.candidates[:1]
        ]

    def moves(self, ranks: int) -> list[Move]:
        """Candidates among the first `ranks` of either list whose rank differs, by their better rank."""
        names = {
            one.record_id: one.reference
            for answer in (self.new, self.old)
            for one in answer.candidates[:ranks]
        }
        moved = [
            Move(reference, self.old.rank_of(record), self.new.rank_of(record))
            for record, reference in names.items()
        ]
        changed = [move for move in moved if move.old != move.new]
        return sorted(changed, key=lambda move: (min(r for r in (move.old, move.new) if r), move.reference))


@dataclass(frozen=True)
class Comparison:
    """All probes."""

    old: str  # model id
    new: str
    probes: Sequence[Compared]

    @cached_property
    def with_mate(self) -> list[Compared]:
        """Probes of which the child is known."""
        return [one for one in self.probes if one.mate]

    def first(self, *, new: bool) -> int:
        """Probes whose mate is first."""
        return sum((one.new_rank if new else one.old_rank) == 1 for one in self.with_mate)

    def listed(self, *, new: bool) -> int:
        """Probes whose mate is in the list."""
        return sum((one.new_rank if new else one.old_rank) is not None for one in self.with_mate)

    def errors(self, *, new: bool) -> int:
        """Probes without an answer."""
        return sum(bool((one.new if new else one.old).error) for one in self.probes)

    @property
    def better(self) -> list[Compared]:
        """Probes whose mate ranks higher with the new model."""
        return [one for one in self.with_mate if _place(one.new_rank) < _place(one.old_rank)]

    @property
    def worse(self) -> list[Compared]:
        """Probes whose mate ranks lower, or not at all, with the new model."""
        return [one for one in self.with_mate if _place(one.new_rank) > _place(one.old_rank)]

    @property
    def same_first(self) -> int:
        """Probes whose first candidate is the same."""
        return sum(one.same_first for one in self.probes)

    @property
    def overlap(self) -> float:
        """The mean share of common candidates."""
        return sum(one.overlap for one in self.probes) / max(len(self.probes), 1)

    def by_change(self) -> list[Compared]:
        """What a person should look at first: mates that were lost or fell, then lists that differ most."""
        return sorted(
            self.probes,
            key=lambda one: (_place(one.old_rank) - _place(one.new_rank), one.same_first, one.overlap),
        )

    def as_json(self) -> dict[str, object]:
        """The sums, for programs."""
        return {
            "old_model": self.old,
            "new_model": self.new,
            "probes": len(self.probes),
            "probes_with_mate": len(self.with_mate),
            "rank1_old": self.first(new=False),
            "rank1_new": self.first(new=True),
            "listed_old": self.listed(new=False),
            "listed_new": self.listed(new=True),
            "mates_higher": len(self.better),
            "mates_lower": len(self.worse),
            "same_first": self.same_first,
            "mean_overlap": round(self.overlap, 4),
            "errors_old": self.errors(new=False),
            "errors_new": self.errors(new=True),
        }


def _place(rank: int | None) -> int:
    return 1_000_000 if rank is None else rank

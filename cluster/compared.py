"""What was answered against what Milvus gives: the same records, order, scores and evidence, bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from cluster.recompute import Recomputed
from homeward.types import Candidate, CandidateList, Query


@dataclass(frozen=True, slots=True)
class CheckedSearch:
    """How one search's lists compare with what they had to be."""

    rev: int
    lists: int
    rows_read: int
    left_out: int  # records that changed since, which are on neither side
    recall: float  # 0..1: of the candidates that had to be listed, those that were; 1 when there are none
    score_error: float  # largest difference of a candidate's or a face's score from what it had to be
    differing: tuple[str, ...]  # record ids, then face ids
    excluded_differ: bool  # the numbers of records that facts kept out of a list
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether the answer was right."""
        return not self.differing and not self.excluded_differ


@dataclass(slots=True)
class Differences:
    """Of the lists of one search, added up."""

    expected: int = 0
    found: int = 0
    score_error: float = 0.0
    records: set[str] = field(default_factory=set)
    faces: set[str] = field(default_factory=set)
    excluded_differ: bool = False

    @property
    def any(self) -> bool:
        """Whether there are some."""
        return bool(self.records or self.faces or self.excluded_differ)

    @property
    def recall(self) -> float:
        """Of the candidates that had to be listed, those that were."""
        return self.found / self.expected if self.expected else 1.0

    def add(self, query: Query, served: CandidateList, true: Recomputed, left_out: AbstractSet[str]) -> None:
        """Compare one list without the records that are left out.

        A record's change moves no other's rank among the rest. So those of a full list that are left must
        be as many of the recomputed ones, from the first on; of a list that had room all of them. Where not
        all of these are known, as many as are.
        """
        listed = [one for one in served.candidates if one.record_id not in left_out]
        wanted = list(true.candidates)
        if len(served.candidates) >= query.k:
            wanted = wanted[: len(listed)]
        if not true.whole:
            listed = listed[: len(wanted)]
        self._add_candidates(listed, wanted)
        if true.excluded is not None and served.excluded != true.excluded:
            self.excluded_differ = True
            self.records |= true.implausible

    def _add_candidates(self, listed: Sequence[Candidate], wanted: Sequence[Candidate]) -> None:
        mine = {one.record_id: one for one in listed}
        true = {one.record_id: one for one in wanted}
        self.expected += len(true)
        self.found += len(mine.keys() & true.keys())
        self.records |= mine.keys() ^ true.keys()
        order = [record for record in mine if record in true]
        right = [record for record in true if record in mine]
        self.records |= {record for record, other in zip(order, right, strict=True) if record != other}
        times = Counter(one.record_id for one in listed)
        self.records |= {record for record, count in times.items() if count > 1}
        for record in right:
            self._add_candidate(mine[record], true[record])

    def _add_candidate(self, mine: Candidate, true: Candidate) -> None:
        self._add_error(mine.score, true.score)
        if (mine.score, mine.implausible) != (true.score, true.implausible):
            self.records.add(mine.record_id)
        if mine.evidence == true.evidence:
            return
        shown = {one.face_id: one for one in mine.evidence}
        right = {one.face_id: one for one in true.evidence}
        self.faces |= {face for face in {*shown, *right} if shown.get(face) != right.get(face)}
        for face in shown.keys() & right.keys():
            self._add_error(shown[face].score, right[face].score)
        if shown == right:  # in another order, or one of them twice
            self.faces |= set(shown)

    def _add_error(self, mine: float, true: float) -> None:
        self.score_error = max(self.score_error, abs(mine - true))

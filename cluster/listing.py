"""From the index's candidate list to the one a person reviews: dates, ages, gaps, notes, ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from catalogue.types import ShownRecord
from cluster.facts import age_at, contradictions, years_between
from cluster.probe import ProbeFace
from cluster.search_types import Age, Known, ListedCandidate, ListedEvidence
from homeward.shown import facts_of, taken_of
from homeward.types import Candidate, CandidateList, DateRange

Ratio = Callable[[float], float | None]
_NOTHING = Known()


def is_current(found: CandidateList, records: Mapping[str, ShownRecord]) -> bool:
    """Whether the catalogue still has every candidate and every face that speaks for it."""
    return all(
        candidate.record_id in records
        and all(one.face_id in records[candidate.record_id].faces for one in candidate.evidence)
        for candidate in found.candidates
    )


def listed(
    found: CandidateList,
    records: Mapping[str, ShownRecord],
    probe: ProbeFace,
    known: Known,
    ratio: Ratio,
) -> tuple[ListedCandidate, ...]:
    """The candidates that the catalogue still has, in the index's order, ranked from 1.

    A face that the catalogue no longer has speaks for nobody; a candidate whose best one it was is
    left out, for its score was that face's.
    """
    kept: list[ListedCandidate] = []
    for candidate in found.candidates:
        record = records.get(candidate.record_id)
        if record is None or candidate.evidence[0].face_id not in record.faces:
            continue
        kept.append(_listed(candidate, record, probe, known, rank=len(kept) + 1, ratio=ratio))
    return tuple(kept)


def _listed(
    candidate: Candidate, record: ShownRecord, probe: ProbeFace, known: Known, *, rank: int, ratio: Ratio
) -> ListedCandidate:
    evidence = tuple(
        ListedEvidence(
            face_id=one.face_id,
            sha256=one.photo_sha256,
            message=face,
            score=one.score,
            years_to_probe=_years(face, probe.taken[one.probe]),
        )
        for one in candidate.evidence
        if (face := record.faces.get(one.face_id)) is not None
    )
    probe_taken = probe.taken[candidate.evidence[0].probe]
    age: Age | None = None
    notes: tuple[str, ...] = ()
    if probe_taken is not None or known != _NOTHING:
        attributes = facts_of(record.message)
        age = age_at(attributes.born, probe_taken)
        notes = contradictions(known, attributes, probe_taken, taken_of(evidence[0].message))
    return ListedCandidate(
        rank=rank,
        record=record,
        score=candidate.score,
        log_likelihood_ratio=ratio(candidate.score),
        evidence=evidence,
        age_at_probe=age,
        implausible=candidate.implausible,
        notes=notes,
    )


def _years(face: bytes, probe_taken: DateRange | None) -> float | None:
    return None if probe_taken is None else years_between(taken_of(face), probe_taken)

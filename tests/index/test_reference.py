"""The reference search against its rules, written down once more as plainly as can be."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.types import (
    Candidate,
    CandidateList,
    Evidence,
    FaceRow,
    Filter,
    Implausible,
    ProbeFacts,
    Query,
)
from index import reference
from index.columns import Columns, from_rows
from index.merge import merge
from index.reference import partial
from tests.index.plain import facts_against, passes
from tests.index.random_rows import DIMENSION, World, hex_id, plain_score
from tests.index.rows import face_row


def plain_search(query: Query, rows: list[FaceRow]) -> CandidateList:
    """Row by row and record by record, in Python's own floats."""
    admitted = [row for row in rows if passes(query, row)]
    by_record: dict[str, list[FaceRow]] = {}
    for row in admitted:
        by_record.setdefault(row.record_id, []).append(row)
    listed = []
    for record, own in by_record.items():
        plausible = [row for row in own if not facts_against(query.facts, row)]
        reasons = set() if plausible else {one for row in own for one in facts_against(query.facts, row)}
        evidence = []
        for row in plausible or own:
            scores = [plain_score(row.template.tolist(), probe.tolist()) for probe in query.templates]
            evidence.append(
                Evidence(row.face_id, row.photo_sha256, row.ordinal, max(scores), scores.index(max(scores)))
            )
        evidence.sort(key=lambda one: (-one.score, one.face_id))
        if query.min_score is None or evidence[0].score >= query.min_score:
            listed.append(
                Candidate(
                    record,
                    evidence[0].score,
                    tuple(evidence[: query.evidence]),
                    tuple(reason for reason in Implausible if reason in reasons),
                )
            )
    listed.sort(key=lambda one: (-one.score, one.record_id))
    excluded: dict[Implausible, int] = {}
    if not query.include_implausible:
        for candidate in listed[: query.k]:
            for reason in candidate.implausible:
                excluded[reason] = excluded.get(reason, 0) + 1
        listed = [candidate for candidate in listed if not candidate.implausible]
    return CandidateList(tuple(listed[: query.k]), excluded, len(admitted), len(by_record), 3, "reference")


@given(st.integers(0, 2**63))
@settings(max_examples=150, deadline=None)
def test_the_reference_does_what_its_rules_say(seed: int) -> None:
    world = World(Random(seed), records=8, faces=30)
    rows = world.distinct_rows(world.chance.choice((0, 1, 5, 30)))
    columns = from_rows(rows, DIMENSION)
    for _ in range(3):
        query = world.query()
        assert reference.search(query, columns, rev=3) == plain_search(query, rows)


@given(st.integers(0, 2**63), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_parts_of_whole_records_merge_to_the_same_list(seed: int, parts: int) -> None:
    world = World(Random(seed), records=12, faces=40)
    rows = world.distinct_rows(40)
    query = world.query()
    slots: list[list[FaceRow]] = [[] for _ in range(parts)]
    for row in rows:
        slots[int(row.record_id, 16) % parts].append(row)
    merged = merge(
        [partial(query, from_rows(slot, DIMENSION)) for slot in slots], query, rev=3, method="reference"
    )
    assert merged == reference.search(query, from_rows(rows, DIMENSION), rev=3)


def _columns(*rows: FaceRow) -> Columns:
    return from_rows(rows, 2)


EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
NEAR_EAST = np.array([0.8, 0.6], np.float32)
PROBE = Query(EAST[np.newaxis], k=10)


def test_equal_scores_are_ordered_by_record_id_and_by_face_id() -> None:
    rows = [face_row(record, photo, 0, EAST) for record in range(6) for photo in range(4)]
    found = reference.search(replace(PROBE, evidence=4), _columns(*rows)).candidates
    records = [candidate.record_id for candidate in found]
    assert records == sorted(records)
    assert len(records) == 6
    for candidate in found:
        faces = [one.face_id for one in candidate.evidence]
        assert faces == sorted(faces)
        assert len(faces) == 4


def test_a_record_scores_its_best_face_over_all_probe_templates_and_names_the_first() -> None:
    rows = [face_row("child", 0, 0, NEAR_EAST), face_row("child", 1, 0, NORTH)]
    query = replace(PROBE, templates=np.stack([EAST, NORTH, NORTH]))
    (candidate,) = reference.search(query, _columns(*rows)).candidates
    assert candidate.score == 1.0
    assert [(one.score, one.probe) for one in candidate.evidence] == [
        (1.0, 1),
        (float(np.float32(0.8)), 0),
    ]


def test_the_threshold_is_kept_by_the_record_not_by_its_evidence() -> None:
    rows = [face_row("child", 0, 0, EAST), face_row("child", 1, 0, NORTH), face_row("else", 2, 0, NORTH)]
    found = reference.search(replace(PROBE, min_score=1.0), _columns(*rows))
    assert [len(candidate.evidence) for candidate in found.candidates] == [2]
    assert (found.rows_searched, found.records_searched) == (3, 2)


def test_one_implausible_photo_is_no_evidence_and_excludes_nobody() -> None:
    facts = ProbeFacts(born=(15_000, 15_100))
    early = face_row("child", 0, 0, EAST, taken_from=14_000, taken_to=14_001)
    late = face_row("child", 1, 0, NEAR_EAST, taken_from=16_000, taken_to=16_001)
    for including in (False, True):
        query = replace(PROBE, facts=facts, include_implausible=including)
        found = reference.search(query, _columns(early, late))
        assert found.excluded == {}
        (candidate,) = found.candidates
        assert candidate.implausible == ()
        assert [one.face_id for one in candidate.evidence] == [late.face_id]


def test_only_candidates_that_would_be_listed_count_as_excluded() -> None:
    facts = ProbeFacts(sex=1, born=(15_000, 15_100))
    boys = [face_row(("boy", number), number, 0, EAST, sex=2) for number in range(2)]
    both = face_row("both", 7, 0, EAST, sex=2, taken_from=14_000, taken_to=14_001)
    far_boy = face_row("far boy", 8, 0, NORTH, sex=2)
    girl = face_row("girl", 9, 0, NEAR_EAST, sex=1)
    columns = _columns(*boys, both, far_boy, girl)
    query = replace(PROBE, facts=facts, k=4)
    found = reference.search(query, columns)
    assert [candidate.record_id for candidate in found.candidates] == [girl.record_id]
    assert found.excluded == {Implausible.SEX_DIFFERS: 3, Implausible.REFERENCE_BEFORE_BIRTH: 1}
    included = reference.search(replace(query, include_implausible=True), columns)
    assert included.excluded == {}
    assert [len(candidate.implausible) for candidate in included.candidates].count(0) == 1
    marks = {candidate.record_id: candidate.implausible for candidate in included.candidates}
    assert marks[both.record_id] == (Implausible.SEX_DIFFERS, Implausible.REFERENCE_BEFORE_BIRTH)
    threshold = replace(query, k=10, min_score=0.5)
    assert reference.search(threshold, columns).excluded[Implausible.SEX_DIFFERS] == 3


def test_records_and_photos_are_left_out_by_name() -> None:
    kept, record, photo = (face_row(name, name, 0, EAST) for name in ("kept", "record", "photo"))
    query = replace(
        PROBE,
        without_records=frozenset({record.record_id, hex_id("nobody", 1)}),
        without_photos=frozenset({photo.photo_sha256}),
    )
    found = reference.search(query, _columns(kept, record, photo))
    assert [candidate.record_id for candidate in found.candidates] == [kept.record_id]
    assert found.rows_searched == 1


def test_unknown_facts_pass_unless_the_filter_is_strict() -> None:
    unknown, known = face_row("unknown", 0, 0, EAST), face_row("known", 1, 0, EAST, sex=1, place=4)
    for wanted in (
        Filter(sexes=frozenset({1})),
        Filter(places=frozenset({4})),
        Filter(born=(0, 1)),
        Filter(event=(0, 1)),
    ):
        columns = _columns(unknown, replace(known, born_from=0, born_to=0, event_from=1, event_to=9))
        assert len(reference.search(replace(PROBE, filter=wanted), columns).candidates) == 2
        strict = replace(PROBE, filter=replace(wanted, strict=True))
        (candidate,) = reference.search(strict, columns).candidates
        assert candidate.record_id == known.record_id

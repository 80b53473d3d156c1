"""Between the search messages of shard.proto and the types of the index, without loss.

Scores travel as doubles and templates as their float32 bytes: the receiver has the same bits. What a
message says wrongly is `InvalidInput` in a request and `Corrupt` in an answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from homeward.types import DAY_MAX, DAY_MIN, Candidate, Evidence, Filter, ProbeFacts, Query
from homeward.v1 import shard_pb2
from index.columns import Bool, hex_ids
from index.filters import check_filter
from index.merge import Partial
from index.placement import SLOTS, slots_of
from index.plausibility import REASONS, names
from index.wire import answered, read_count, read_hex, read_id, read_templates, read_words, wrong

COUNT_MAX = 1 << 20  # candidates of a list, faces of a candidate: more than any limit of a search
_ALL = np.ones(SLOTS, np.bool_)
_BIT_OF = {reason: 1 << bit for bit, reason in enumerate(REASONS)}


def write_slots(slots: Bool) -> bytes:
    """(SLOTS,) as a bitmap."""
    return np.packbits(slots, bitorder="little").tobytes()


def read_slots(raw: bytes) -> Bool:
    """(SLOTS,); all for no bytes. Raises `InvalidInput`."""
    if not raw:
        return _ALL.copy()
    if len(raw) != SLOTS // 8:
        raise wrong("slots", f"a bitmap of {SLOTS // 8} bytes, not of {len(raw)}")
    return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").astype(np.bool_)


def write_query(query: Query) -> shard_pb2.ShardQuery:
    """One query. Raises `InvalidInput` for ids that are none and numbers beyond 64 bits."""
    check_filter(query)
    wanted, facts = query.filter, query.facts
    ages = facts.age_years or (None, None)
    try:
        return shard_pb2.ShardQuery(
            templates=query.templates.astype("<f4").tobytes(),
            probes=query.templates.shape[0],
            dimension=query.templates.shape[1],
            k=query.k,
            filter=shard_pb2.ShardFilter(
                galleries=sorted(wanted.galleries),
                agencies=sorted(wanted.agencies),
                sexes=sorted(wanted.sexes),
                places=sorted(wanted.places),
                born=_write_days(wanted.born),
                event=_write_days(wanted.event),
                strict=wanted.strict,
            ),
            facts=shard_pb2.ShardFacts(
                sex=facts.sex,
                born=_write_days(facts.born),
                taken=_write_days(facts.taken),
                age_from=ages[0],
                age_to=ages[1],
            ),
            include_implausible=query.include_implausible,
            min_score=query.min_score,
            evidence=query.evidence,
            without_records=[bytes.fromhex(one) for one in sorted(query.without_records)],
            without_photos=[bytes.fromhex(one) for one in sorted(query.without_photos)],
        )
    except ValueError as error:
        raise wrong("queries", "numbers of 64 bits") from error


def read_query(message: shard_pb2.ShardQuery) -> Query:
    """The inverse of `write_query`; whether the query makes sense is for `check_query` to say."""
    for field, count in (("k", message.k), ("evidence", message.evidence)):
        if count > COUNT_MAX:
            raise wrong(field, f"at most {COUNT_MAX}, not {count}")
    wanted, facts = message.filter, message.facts
    if facts.HasField("age_from") != facts.HasField("age_to"):
        raise wrong("facts", "an age from and to, or none")
    return Query(
        templates=read_templates(message.templates, message.probes, message.dimension),
        k=message.k,
        filter=Filter(
            galleries=frozenset(wanted.galleries),
            agencies=frozenset(wanted.agencies),
            sexes=frozenset(wanted.sexes),
            born=_read_days(wanted.born) if wanted.HasField("born") else None,
            event=_read_days(wanted.event) if wanted.HasField("event") else None,
            places=frozenset(wanted.places),
            strict=wanted.strict,
        ),
        facts=ProbeFacts(
            sex=facts.sex,
            born=_read_days(facts.born) if facts.HasField("born") else (DAY_MIN, DAY_MAX),
            taken=_read_days(facts.taken) if facts.HasField("taken") else (DAY_MIN, DAY_MAX),
            age_years=(facts.age_from, facts.age_to) if facts.HasField("age_from") else None,
        ),
        include_implausible=message.include_implausible,
        min_score=message.min_score if message.HasField("min_score") else None,
        evidence=message.evidence,
        without_records=frozenset(read_id(one, "without_records") for one in message.without_records),
        without_photos=frozenset(read_id(one, "without_photos", 32) for one in message.without_photos),
    )


def write_found(parts: Sequence[Partial], rev: int) -> shard_pb2.SearchSlotsResponse:
    """The answer to a search."""
    return shard_pb2.SearchSlotsResponse(
        parts=[
            shard_pb2.ShardPart(
                plausible=_write_candidates(part.plausible),
                implausible=_write_candidates(part.implausible),
                rows=part.rows,
                records=part.records,
            )
            for part in parts
        ],
        rev=rev,
    )


def read_found(
    message: shard_pb2.SearchSlotsResponse, queries: Sequence[Query], slots: Bool
) -> tuple[tuple[Partial, ...], int]:
    """The inverse of `write_found`. Raises `Corrupt` for what is no answer to these queries over these
    slots (SLOTS,): a record of another slot could stand in the list twice."""
    with answered():
        if len(message.parts) != len(queries):
            raise wrong("parts", f"one per query, {len(queries)}, not {len(message.parts)}")
        parts = tuple(
            Partial(
                plausible=_read_candidates(part.plausible, query, slots),
                implausible=_read_candidates(part.implausible, query, slots),
                rows=read_count(part.rows, "rows"),
                records=read_count(part.records, "records"),
            )
            for part, query in zip(message.parts, queries, strict=True)
        )
        return parts, read_count(message.rev, "rev")


def _write_candidates(candidates: Sequence[Candidate]) -> shard_pb2.ShardCandidates:
    faces = [face for one in candidates for face in one.evidence]
    return shard_pb2.ShardCandidates(
        record_ids=bytes.fromhex("".join([one.record_id for one in candidates])),
        scores=[one.score for one in candidates],
        implausible=[sum([_BIT_OF[reason] for reason in one.implausible]) for one in candidates],
        face_counts=[len(one.evidence) for one in candidates],
        face_ids=bytes.fromhex("".join([face.face_id for face in faces])),
        photos=bytes.fromhex("".join([face.photo_sha256 for face in faces])),
        ordinals=[face.ordinal for face in faces],
        face_scores=[face.score for face in faces],
        probes=[face.probe for face in faces],
    )


def _read_candidates(message: shard_pb2.ShardCandidates, query: Query, slots: Bool) -> tuple[Candidate, ...]:
    words = read_words(message.record_ids, 2, "record_ids")
    records = hex_ids(words)
    scores, reasons = list(message.scores), list(message.implausible)
    counts = list(message.face_counts)
    if not len(records) == len(scores) == len(reasons) == len(counts):
        raise wrong("candidates", "columns of one length")
    if len(records) > query.k:
        raise wrong("candidates", f"at most {query.k}")
    if not slots[slots_of(words)].all():
        raise wrong("candidates", "records of the slots that were asked for")
    faces, photos = read_hex(message.face_ids, 16, "face_ids"), read_hex(message.photos, 32, "photos")
    ordinals, face_scores, probes = list(message.ordinals), list(message.face_scores), list(message.probes)
    if not sum(counts) == len(faces) == len(photos) == len(ordinals) == len(face_scores) == len(probes):
        raise wrong("evidence", "columns of one length")
    if not all(map(math.isfinite, scores)) or not all(map(math.isfinite, face_scores)):
        raise wrong("scores", "finite numbers")
    if max(reasons, default=0) >> len(REASONS) or max(probes, default=0) >= len(query.templates):
        raise wrong("candidates", "known reasons and probes")
    columns = zip(faces, photos, ordinals, face_scores, probes, strict=True)
    evidence = [Evidence(*values) for values in columns]
    found, start = [], 0
    for record, score, bits, count in zip(records, scores, reasons, counts, strict=True):
        found.append(Candidate(record, score, tuple(evidence[start : start + count]), names(bits)))
        start += count
    return tuple(found)


def _write_days(span: tuple[int, int] | None) -> shard_pb2.DayRange | None:
    return None if span is None else shard_pb2.DayRange(first=span[0], last=span[1])


def _read_days(message: shard_pb2.DayRange) -> tuple[int, int]:
    return message.first, message.last

"""What an answer must be while records come and go, and which answers are not that.

A record that was enrolled before a search began and not deleted before it ended must be in its answer; one
whose deletion had returned, or whose enrolment had not begun, must not; of the others both is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.open_loop import Answer
from homeward.types import Float32, Query
from index.columns import Columns, concatenate, hex_ids
from index.reference import partial
from index.score import score

if TYPE_CHECKING:
    from homeward.v1 import search_pb2

K = 20
_RANKED = 300  # records of a probe that are ranked: more than can be deleted of its list
EXACT = "exact"

Listed = tuple[str, float, tuple[tuple[str, float], ...]]  # record, score, faces with their scores


@dataclass(slots=True)
class Life:
    """When a record may have come, and was there; may have gone, and was gone. Monotonic seconds."""

    comes: float = -inf
    there: float = -inf
    goes: float = inf
    gone: float = inf

    def is_in(self, started: float, ended: float) -> bool:
        """Whether a search of that time must find it."""
        return self.there <= started and self.goes >= ended

    def is_out(self, started: float, ended: float) -> bool:
        """Whether a search of that time must not find it."""
        return self.gone <= started or self.comes >= ended


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with an answer."""

    wrong: bool  # not the reference's
    unmarked: bool  # not complete from shards, but says "exact"


class Truth:
    """All records that there ever are: those of the stores, and newcomers yet to be enrolled."""

    def __init__(self, stored: Columns, newcomers: Columns, probes: Float32) -> None:
        self._ranked = _ranked(concatenate([stored, newcomers], stored.dimension), probes)
        self._records = len(set(map(bytes, stored.record)))
        self.lives: dict[str, Life] = {one: Life(inf, inf) for one in hex_ids(newcomers.record)}

    def best(self, probe: int) -> list[str]:
        """Records by falling score."""
        return [record for record, _, _ in self._ranked[probe]]

    def verdict(self, answer: Answer, *, uncovered: bool) -> Verdict:
        """Judge an answer. `uncovered`: while it was made, no living shard held some of the slots."""
        response = answer.response
        assert response is not None
        found = [_listed(one) for one in response.lists[0].candidates]
        shown = {record for record, _, _ in found}
        wanted: list[Listed] = []
        for candidate in self._ranked[answer.request]:
            life = self.lives.get(candidate[0])
            is_there = life is None or life.is_in(answer.started, answer.ended)
            if life is not None and not is_there:
                is_there = candidate[0] in shown and not life.is_out(answer.started, answer.ended)
            if is_there:
                wanted.append(candidate)
            if len(wanted) == K:
                break
        account = response.account
        fewest, most = self._count(answer)
        short = account.method == EXACT and not fewest <= account.records <= most
        return Verdict(found != wanted or short, account.method == EXACT and (uncovered or short))

    def _count(self, answer: Answer) -> tuple[int, int]:
        """The fewest and the most records there can have been."""
        fewest = most = self._records
        for life in self.lives.values():
            is_stored = life.there == -inf
            must = life.is_in(answer.started, answer.ended)
            may = not life.is_out(answer.started, answer.ended)
            fewest += must - is_stored
            most += may - is_stored
        return fewest, most


def _listed(candidate: search_pb2.Candidate) -> Listed:
    faces = tuple((one.face.face_id, one.comparison_score) for one in candidate.evidence)
    return candidate.record_id, candidate.comparison_score, faces


def _ranked(columns: Columns, probes: Float32) -> list[list[Listed]]:
    """Per probe the best records, by the reference over all their rows."""
    records = np.array(hex_ids(columns.record))
    names, number = np.unique(records, return_inverse=True)
    lists: list[list[Listed]] = []
    for probe in probes:
        best = np.full(len(names), -inf)
        np.maximum.at(best, number, score(columns.template, probe))
        reach = np.partition(best, -_RANKED)[-_RANKED] if len(best) > _RANKED else -inf
        some = columns.take(best[number] >= reach)
        found = partial(Query(probe[np.newaxis], _RANKED), some)
        lists.append(
            [
                (one.record_id, one.score, tuple((face.face_id, face.score) for face in one.evidence))
                for one in found.plausible
            ]
        )
    return lists


def percentiles(answers: Sequence[Answer]) -> Mapping[str, float | None]:
    """Of the answers that came, in milliseconds."""
    seconds = [answer.seconds for answer in answers if answer.response is not None]
    if not seconds:
        return dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "max_ms"))
    named = {f"p{each}_ms": float(np.percentile(seconds, each)) * 1e3 for each in (50, 95, 99)}
    return named | {"max_ms": max(seconds) * 1e3}

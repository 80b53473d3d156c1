"""A batch of searches on one thread: scan, look up, make what is sent, log.

The catalogue decides what exists: a record deleted between scan and look-up does not come back. The
search log has its line before the answer leaves.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from catalogue.types import ShownRecord
from cluster.compose import Parts
from cluster.listing import is_current, listed
from cluster.lookup import Lookup
from cluster.probe import Probe
from cluster.search_entry import search_entry
from cluster.search_types import AnswerList, SearchAnswer, SearchRequest
from cluster.searchlog import Body, body_of
from homeward.errors import StoreUnavailable
from homeward.telemetry import Operation, emit
from homeward.types import Calibration, CandidateList, Query

_Lists = tuple[CandidateList, ...]
_Records = Mapping[str, ShownRecord]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Made(Generic[Result]):
    """An answer and what is sent of it, once its line is on the disk."""

    answer: SearchAnswer
    written: Result


@dataclass(frozen=True, slots=True)
class Job:
    """A search that waits for its scan."""

    request: SearchRequest
    probe: Probe
    queries: tuple[Query, ...]  # one per face of the probe
    write: Callable[[SearchAnswer], Any]
    seconds: dict[str, float]  # by stage
    at: float  # performance counter
    is_last: bool  # takes what there is, if the catalogue has moved on since the scan


class BatchSearch:
    """Answers searches that share a scan. Blocking: for the scanning threads."""

    def __init__(self, parts: Parts, lookup: Lookup) -> None:
        self._parts = parts
        self._lookup = lookup

    def work(self, jobs: Sequence[Job], go_on: Callable[[], None]) -> list[Made[Any] | Exception | None]:
        """Scan for all, look up what all show by one query, finish each. The next batch is scanned once this
        one has been."""
        live = self._parts.live
        if live.scans_elsewhere:
            go_on()
        try:
            found = iter(live.search_batch([query for job in jobs for query in job.queries]))
        except BaseException:
            for job in jobs:
                tell("scan", job.seconds, time.perf_counter() - job.at, "FAILED")
            raise
        go_on()
        scanned = time.perf_counter()
        lists = [tuple(next(found) for _ in job.queries) for job in jobs]
        for job, mine in zip(jobs, lists, strict=True):
            tell("scan", job.seconds, scanned - job.at)
            self._parts.self_check.offer(job.queries, mine)
        candidates = [each for mine in lists for one in mine for each in one.candidates]
        try:
            records = self._lookup.shown({face.face_id for each in candidates for face in each.evidence})
        except BaseException:
            for job in jobs:
                tell("catalogue", job.seconds, time.perf_counter() - scanned, "FAILED")
            raise
        looked_up = time.perf_counter() - scanned
        answers: list[Made[Any] | Exception | None] = []
        entries: list[Body] = []
        for job, mine in zip(jobs, lists, strict=True):
            tell("catalogue", job.seconds, looked_up)
            try:
                answers.append(self._finish(job, mine, records, entries))
            except Exception as error:  # noqa: BLE001 - raised to its own caller alone
                answers.append(error)
        self._log(entries, jobs, answers)
        return answers

    def _finish(self, job: Job, lists: _Lists, records: _Records, entries: list[Body]) -> Made[Any] | None:
        """The job's answer; its entry for the log is added."""
        if not job.is_last and not all(is_current(one, records) for one in lists):
            return None
        answer = self._answer(job.probe, lists, records, job.seconds)
        entries.append(body_of(search_entry(job.request, job.probe.logged, answer)))
        return Made(answer, job.write(answer))

    def _log(
        self,
        entries: Sequence[Body],
        jobs: Sequence[Job],
        answers: list[Made[Any] | Exception | None],
    ) -> None:
        """No answer leaves before its line is on the disk, and none without."""
        if not entries:
            return
        failure: StoreUnavailable | None = None
        begun = time.perf_counter()
        try:
            self._parts.search_log.append(entries)
        except StoreUnavailable as error:
            failure = error
        spent = time.perf_counter() - begun
        for number, job in enumerate(jobs):
            if isinstance(answers[number], Made):
                tell("log", job.seconds, spent, "FAILED" if failure else "OK")
                answers[number] = failure or answers[number]

    def _answer(
        self,
        probe: Probe,
        lists: _Lists,
        records: _Records,
        seconds: dict[str, float],
    ) -> SearchAnswer:
        return SearchAnswer(
            search_id=secrets.token_hex(16),
            lists=tuple(
                AnswerList(
                    face.face,
                    listed(one, records, face, probe.known, partial(ratio, self._parts.calibration)),
                    one.excluded,
                )
                for face, one in zip(probe.faces, lists, strict=True)
            ),
            rows=lists[0].rows_searched,
            records=lists[0].records_searched,
            rev=min(one.rev for one in lists),
            method=_method(lists),
            model_id=self._parts.embedding.model_id,
            calibration=self._parts.calibration,
            seconds=seconds,
        )


def ratio(calibration: Calibration | None, found: float) -> float | None:
    """The log-likelihood ratio of a score, where the model is calibrated."""
    return None if calibration is None else calibration.llr(found)


def tell(stage: str, seconds: dict[str, float], spent: float, outcome: str = "OK") -> None:
    """Count the seconds to the stage of this search, and to the metrics."""
    seconds[stage] = seconds.get(stage, 0.0) + spent
    emit(Operation(f"search {stage}", outcome, spent))


def _method(lists: _Lists) -> str:
    """How all of them were found: the weakest of their methods."""
    return max((one.method for one in lists), key=lambda method: (method != "exact", method))

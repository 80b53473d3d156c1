"""A sample of the answered searches is recomputed from Milvus, so that a wrong index does not stay unseen.

Searches hand over what they asked and what they got, and go on; one thread works through the sample when
there is time, with pauses. Probes' templates are kept in memory alone, and not for long.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from catalogue.store import Catalogue
from cluster.compared import CheckedSearch, Differences
from cluster.recompute import Pause, Recomputation
from homeward.clock import Clock
from homeward.config import IndexSettings
from homeward.errors import HomewardError
from homeward.telemetry import Operation, SelfChecked, emit
from homeward.types import CandidateList, Query
from index.gallery import MilvusGallery

AGAIN_S = 2.0  # until a difference is looked at once more
POLL_S = 1.0
NAMED_IDS = 20  # of a difference, in the log

_NAME = "self-check"
_SLICE = "self-check slice"
_DIFFERENCES = 16  # kept in memory

_logger = logging.getLogger(__name__)


def check_search(
    catalogue: Catalogue,
    gallery: MilvusGallery,
    model_id: str,
    queries: Sequence[Query],
    served: Sequence[CandidateList],
    *,
    clock: Clock,
    slice_rows: int,
    pause: Pause = lambda _: None,
    wait: Callable[[float], object] = lambda _: None,
) -> CheckedSearch:
    """Recompute one search and compare. Blocking.

    `pause` is called after each slice with the seconds it took, `wait` before a difference is looked at
    again: rows that a writer was just changing make none. Raises `StoreUnavailable`.
    """
    started = clock.monotonic()
    again = Recomputation(catalogue, gallery, model_id, queries, served)
    again.read(slice_rows, pause)
    found = _differences(again, queries, served)
    if found.any:
        wait(AGAIN_S)
        again.read_again()
        found = _differences(again, queries, served)
    return CheckedSearch(
        rev=min(one.rev for one in served),
        lists=len(served),
        rows_read=again.rows_read,
        left_out=len(again.left_out),
        recall=found.recall,
        score_error=found.score_error,
        differing=(*sorted(found.records), *sorted(found.faces)),
        excluded_differ=found.excluded_differ,
        seconds=clock.monotonic() - started,
    )


class SelfCheck:
    """The sample of one server's searches, and what became of it.

    `offer` is for any thread and never waits; `run_one` is for one thread at a time.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        gallery: MilvusGallery,
        model_id: str,
        settings: IndexSettings,
        *,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._catalogue = catalogue
        self._gallery = gallery
        self._model_id = model_id
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._kept: deque[_Kept] = deque(maxlen=settings.self_check_queue)
        self._kept_at = clock.monotonic()
        self._differences: deque[CheckedSearch] = deque(maxlen=_DIFFERENCES)
        self._closed = threading.Event()

    @property
    def waiting(self) -> int:
        """Searches kept and not yet recomputed."""
        return len(self._kept)

    @property
    def differences(self) -> tuple[CheckedSearch, ...]:
        """The last searches whose answer was wrong, oldest first."""
        return tuple(self._differences)

    def offer(self, queries: Sequence[Query], lists: Sequence[CandidateList]) -> None:
        """Keep this search if the sample is to have it: a share of all, and one now and then of few.

        The newest are kept: where more come than can be recomputed, the oldest gives way.
        """
        if not lists or self._closed.is_set():
            return
        now = self._clock.monotonic()
        interval_s = self._settings.self_check_interval_s
        is_due = interval_s > 0 and not self._kept and now - self._kept_at >= interval_s
        if not is_due and self._chance() >= self._settings.self_check_share:
            return
        with self._lock:
            self._kept.append(_Kept(tuple(queries), tuple(lists), now))
            self._kept_at = now

    def run_one(self) -> CheckedSearch | None:
        """Recompute the search that has waited longest; None when none waits or the check was closed.

        Blocking, for minutes in a gallery of millions: it reads for a share of the time only. Raises
        `StoreUnavailable` when the catalogue or Milvus does not answer; that search is then forgotten.
        """
        kept = self._next()
        if kept is None:
            return None
        started = self._clock.monotonic()
        try:
            checked = check_search(
                self._catalogue,
                self._gallery,
                self._model_id,
                kept.queries,
                kept.lists,
                clock=self._clock,
                slice_rows=self._settings.self_check_slice_rows,
                pause=self._pause,
                wait=self._wait,
            )
        except _Closed:
            return None
        except HomewardError as error:
            seconds = self._clock.monotonic() - started
            emit(Operation(_NAME, "UNAVAILABLE", seconds, reason=error.code))
            raise
        self._report(checked)
        return checked

    def close(self) -> None:
        """Forget what waits, and end a `run_one` under way after its slice."""
        self._closed.set()
        with self._lock:
            self._kept.clear()

    def _next(self) -> _Kept | None:
        self._forget_old()
        with self._lock:
            return self._kept.popleft() if self._kept and not self._closed.is_set() else None

    def _forget_old(self) -> None:
        """A probe may be the template of a child who is deleted meanwhile: it is not kept for long."""
        oldest = self._clock.monotonic() - self._settings.self_check_keep_s
        with self._lock:
            while self._kept and self._kept[0].at < oldest:
                self._kept.popleft()

    def _pause(self, seconds: float) -> None:
        emit(Operation(_SLICE, "OK", seconds))  # one search of a large gallery takes hours: that it goes on
        self._forget_old()
        self._wait(seconds * (1.0 / self._settings.self_check_load - 1.0))

    def _wait(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            _end()

    def _report(self, checked: CheckedSearch) -> None:
        emit(
            SelfChecked(
                _NAME,
                "OK" if checked.agrees else "DATA_LOSS",
                checked.seconds,
                reason="" if checked.agrees else "ANSWER_DIFFERS",
                recall=checked.recall,
                score_error=checked.score_error,
                rows_read=checked.rows_read,
                left_out=checked.left_out,
            )
        )
        if checked.agrees:
            return
        self._differences.append(checked)
        more = len(checked.differing) - NAMED_IDS
        _logger.error(
            "an answer at rev %d is not what Milvus gives: recall %.4f, largest score difference %.3g; "
            "%s%s%s. Run homeward doctor --mend",
            checked.rev,
            checked.recall,
            checked.score_error,
            "records and faces " + ", ".join(checked.differing[:NAMED_IDS]) if checked.differing else "",
            f" and {more} more" if more > 0 else "",
            "; the numbers of excluded records differ" if checked.excluded_differ else "",
        )


async def check_searches(check: SelfCheck) -> None:
    """Work through the sample; runs until it is cancelled, and ends when nothing reads any more."""
    loop = asyncio.get_running_loop()
    work: asyncio.Future[CheckedSearch | None] | None = None
    try:
        while True:
            await asyncio.sleep(POLL_S)
            if not check.waiting:
                continue
            work = loop.run_in_executor(None, check.run_one)
            try:
                await asyncio.shield(work)
            except HomewardError as error:
                _logger.warning("recomputing a search: %s", error.message)
            except Exception:  # one failure must not end the checking
                _logger.exception("recomputing a search")
    finally:
        check.close()
        if work is not None:
            await asyncio.wait([work])


@dataclass(frozen=True, slots=True)
class _Kept:
    """A search of the sample. Its templates stay out of every text."""

    queries: tuple[Query, ...] = field(repr=False)
    lists: tuple[CandidateList, ...] = field(repr=False)
    at: float  # monotonic seconds


class _Closed(Exception):
    """The server ends."""


def _end() -> NoReturn:
    raise _Closed


def _differences(
    again: Recomputation, queries: Sequence[Query], served: Sequence[CandidateList]
) -> Differences:
    found = Differences()
    for query, one, true in zip(queries, served, again.results(), strict=True):
        found.add(query, one, true, again.left_out)
    return found

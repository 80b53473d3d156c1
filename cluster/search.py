"""One search from probe to answer: check, embed, and wait for a batch; again where the catalogue moved on."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from cluster.compose import SCANNING_THREADS, Parts
from cluster.facts import probe_facts
from cluster.lookup import Lookup
from cluster.plan import check_context, check_limits, check_size, coded, least_score
from cluster.probe import Probe, face_of, photo_probe, record_probe, template_probe
from cluster.search_batch import BatchSearch, Job, Made, ratio, tell
from cluster.search_entry import compare_entry
from cluster.search_types import (
    Comparison,
    PhotoProbe,
    SearchAnswer,
    SearchContext,
    SearchRequest,
    TemplateProbe,
)
from cluster.searchlog import body_of
from homeward.batching import StagedBatcher
from homeward.call_context import CaseHash, note_case, note_stages
from homeward.errors import Conflict, InvalidInput, PhotoReason, PhotoRejected, Unavailable
from homeward.ids import check_id, photo_sha256
from homeward.types import Face, Filter, PhotoFaces, Query
from index.columns import hex_ids
from index.reference import check_query
from index.score import score

RESCANS = 2  # when a candidate was deleted or changed between scan and look-up
POLL_S = 0.01
RECORD_FACES_MAX = 1024  # each is compared with every row at once

Result = TypeVar("Result")


class Searcher:
    """Searches and compares over composed parts. For one event loop; blocking work never runs on it."""

    def __init__(self, parts: Parts, cases: CaseHash | None = None) -> None:
        """`cases` names the case of a call in logs."""
        self._parts = parts
        self._cases = cases or CaseHash()
        self._settings = parts.settings.search
        self._lookup = Lookup(parts.catalogue)
        self._is_open = False
        self._batcher: StagedBatcher[Job, Made[Any] | None] = StagedBatcher(
            BatchSearch(parts, self._lookup).work,
            lanes=SCANNING_THREADS,
            executor=parts.scanning,
            batch_max=self._settings.batch_max,
            queue_max=self._settings.queue_max,
            name="search",
            weigh=lambda job: sum(len(query.templates) for query in job.queries),
            weight_max=self._settings.batch_max,
        )

    @property
    def is_open(self) -> bool:
        """Whether searches are answered."""
        return self._is_open

    def open(self) -> None:
        """The index is loaded; until then every search is refused."""
        self._is_open = True

    async def close(self) -> None:
        """Finish the scans that were accepted, and take no more."""
        self._is_open = False
        await self._batcher.close()

    async def search(
        self,
        request: SearchRequest,
        wait_s: float,
        write: Callable[[SearchAnswer], Result],
    ) -> tuple[SearchAnswer, Result]:
        """Answer one search, waiting at most `wait_s` seconds for its `min_rev`.

        `write`, called in another thread, makes of the answer what is to be sent; its line is in the search
        log on return. How long that took is in the answer's `seconds` only then.

        Raises `CaseRequired`; `InvalidInput` and its kinds for the rest of the request; `NotFound`
        for the record; `Conflict` (NOT_CALIBRATED, RECORD_NOT_SEARCHABLE); `Overloaded`; `Unavailable`
        (INDEX_LOADING, REV_NOT_REACHED, and `StoreUnavailable` when catalogue or log fail).
        """
        self._check_open()
        check_context(request.context)
        note_case(self._cases(request.context.case_reference))
        k, evidence = check_limits(request, self._settings)
        min_score = least_score(request, self._parts.calibration)
        wanted = await self._filter(request)
        seconds: dict[str, float] = {}
        note_stages(seconds)
        if request.min_rev:
            with _timed("wait", seconds):
                await self._reach(request.min_rev, wait_s)
        with _timed("probe", seconds):
            probe = await self._probe(request)
        check_size(len(probe.faces), k, evidence)
        queries = tuple(
            Query(
                templates=face.templates,
                k=k,
                filter=wanted,
                facts=probe_facts(probe.known),
                include_implausible=request.include_implausible,
                min_score=min_score,
                evidence=evidence,
                without_records=probe.without_records,
                without_photos=probe.without_photos,
            )
            for face in probe.faces
        )
        for query in queries:  # a batch is shared with strangers: one bad query must not cost them theirs
            check_query(query, self._parts.embedding.dimension)
        made: Made[Result] | None = None
        for attempt in range(RESCANS + 1):
            # Again if the catalogue moved on meanwhile, so that a child deleted in between leaves its place
            # to the next one.
            at, is_last = time.perf_counter(), attempt == RESCANS
            made = await self._batcher.submit(Job(request, probe, queries, write, seconds, at, is_last))
            if made is not None:
                break
            await asyncio.sleep(POLL_S * 2**attempt)  # the writer is about to change the index too
        assert made is not None
        return made.answer, made.written

    async def compare(
        self, context: SearchContext, photos: tuple[bytes, bytes], ordinals: tuple[int | None, int | None]
    ) -> Comparison:
        """Compare one face of each of two photos; of several faces the ordinal must be given.

        Raises as `search` does for a photo.
        """
        self._check_open()
        check_context(context)
        note_case(self._cases(context.case_reference))
        for photo, field in zip(photos, ("first", "second"), strict=True):
            if not photo:
                raise InvalidInput(f"{field}: a photo is required", field=field)
        # At once, so that they share a batch; a refused one does not leave the other running unheard.
        seen = await asyncio.gather(*map(self._parts.embedding.embed, photos), return_exceptions=True)
        first, second = (
            _sole_face(one, ordinal, field)
            for one, ordinal, field in zip(seen, ordinals, ("first", "second"), strict=True)
        )
        found = float(score(first.template[np.newaxis, :], second.template)[0])
        made = Comparison(
            search_id=secrets.token_hex(16),
            score=found,
            log_likelihood_ratio=ratio(self._parts.calibration, found),
            first=first,
            second=second,
            model_id=self._parts.embedding.model_id,
            calibration=self._parts.calibration,
        )
        entry = compare_entry(context, (photo_sha256(photos[0]), photo_sha256(photos[1])), made)
        await self._blocking(partial(self._parts.search_log.append, [body_of(entry)]))
        return made

    def _check_open(self) -> None:
        if not self._is_open:
            raise Unavailable("the index is being loaded; try again shortly", code="INDEX_LOADING")

    async def _filter(self, request: SearchRequest) -> Filter:
        wanted = request.wanted
        if not (wanted.galleries or wanted.agencies or wanted.places):
            return coded(wanted, lambda _dictionary, _name: None)
        return await self._blocking(lambda: coded(wanted, self._lookup.code_of))

    async def _probe(self, request: SearchRequest) -> Probe:
        embedding, given = self._parts.embedding, request.probe
        if isinstance(given, TemplateProbe):
            return template_probe(given, request.known, embedding.model_id, embedding.dimension)
        if isinstance(given, PhotoProbe):
            if not given.photo:
                raise InvalidInput("photo: the photo is empty", field="photo")
            seen = await embedding.embed(given.photo)
            return photo_probe(given, seen, request.known, self._settings.max_probe_faces)
        record_id = check_id(given.record_id, "record_id")
        enrolled = await self._blocking(lambda: self._lookup.record(record_id))
        rows = await self._parts.live.record_rows(record_id)
        if len(rows) > RECORD_FACES_MAX:
            raise InvalidInput(
                f"the record has {len(rows)} faces; at most {RECORD_FACES_MAX} can be a probe: search with "
                "one of its photos",
                code="TOO_MANY_FACES",
                field="record_id",
            )
        if not len(rows):
            raise Conflict(
                "no photo of this record gave a usable face, so it cannot be a probe",
                code="RECORD_NOT_SEARCHABLE",
                record_id=record_id,
            )
        return record_probe(
            record_id,
            templates=rows.template,
            taken=tuple(map(enrolled.taken.get, hex_ids(rows.face))),
            photos=enrolled.photos,
            attributes=enrolled.attributes,
            given=request.known,
        )

    async def _reach(self, rev: int, wait_s: float) -> None:
        """Wait until answers contain the changes up to `rev`."""
        newest = await self._blocking(self._lookup.rev)
        reached = await self._parts.live.reach(rev, wait_s if rev <= newest else 0.0)
        if reached < rev:
            raise Unavailable(
                f"the index holds the changes up to rev {reached}, not yet {rev}; try again",
                code="REV_NOT_REACHED",
                rev=reached,
                newest=newest,
            )

    async def _blocking(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._parts.blocking, work)


def _sole_face(seen: PhotoFaces | BaseException, ordinal: int | None, field: str) -> Face:
    if isinstance(seen, BaseException):
        raise seen
    if not seen.faces:
        raise PhotoRejected(PhotoReason.NO_FACE, f"{field}: no face was found", field=field)
    if ordinal is not None:
        return face_of(seen, ordinal, f"{field}_ordinal")
    if len(seen.faces) > 1:
        raise PhotoRejected(
            PhotoReason.FACE_CHOICE_REQUIRED,
            f"{field}: {len(seen.faces)} faces were found; name one with {field}_ordinal",
            field=f"{field}_ordinal",
        )
    return seen.faces[0]


@contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    outcome = "FAILED"
    try:
        yield
        outcome = "OK"
    finally:
        tell(stage, seconds, time.perf_counter() - started, outcome)

"""Loads parts: reads, decodes, embeds, writes and commits one, as often as it takes.

Some parts at a time: while one is being read or written, others are in the model. What a part's photos become
follows from the part alone, and everything is written to ids that follow from what is written: a part that
was begun by somebody who died is done again from its start, and comes to the same.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from catalogue.ledger import LoadLedger
from catalogue.load_types import DonePart, Lease
from cluster.load.counters import Counters, Stage
from cluster.load.load_documents import LoadDocuments
from cluster.load.outcome_types import NOBODY, Became, PartOutcome
from cluster.load.part_done import PartDone, failed
from cluster.load.part_outcomes import Embedded
from cluster.load.part_reader import PartReader, ReadPhoto
from cluster.load.part_writer import PartWriter
from cluster.load.patience import Patience
from cluster.load.plan_types import Part
from cluster.load.tally import Tally
from homeward.errors import HomewardError, NotFound
from workers.bulk import BulkBatch, BulkEmbedding


@dataclass(frozen=True, slots=True)
class _Batch:
    """Photos that go through the model together."""

    photos: tuple[ReadPhoto, ...]
    future: Future[BulkBatch]


class Loader:
    """Loads parts of one load under one lease. `load` may be called from several threads."""

    def __init__(
        self,
        *,
        lease: Lease,
        planned_by: int,
        ledger: LoadLedger,
        documents: LoadDocuments,
        reader: PartReader,
        embedding: BulkEmbedding,
        writer: Callable[[], PartWriter],
        tally: Tally,
        patience: Patience,
        batch_max: int,
    ) -> None:
        """`planned_by`: the fence of the driver that laid the parts ready. `writer` may wait for stores
        that are being opened, and may raise what they raise."""
        self._lease = lease
        self._planned_by = planned_by
        self._ledger = ledger
        self._documents = documents
        self._reader = reader
        self._embedding = embedding
        self._writer = writer
        self._tally = tally
        self._patience = patience
        self._batch_max = batch_max
        self._turns = itertools.count()

    def load(self, number: int) -> PartDone:
        """Load one part, unless it is done. An error is an answer: whoever drives decides what it means."""
        try:
            return self._patience.do(lambda: self._load(number))
        except HomewardError as error:
            return failed(number, error)

    def counters(self) -> Counters:
        """What was done so far."""
        return self._tally.counters()

    def stop(self) -> None:
        """Begin nothing more."""
        self._patience.stop()

    def _load(self, number: int) -> PartDone:
        load = self._lease.load
        if self._ledger.document_of(load, number) is not None:
            return PartDone(number)
        try:
            part = self._documents.get_part(load, self._planned_by, number)
        except NotFound:
            if self._ledger.document_of(load, number) is not None:  # done between the two looks
                return PartDone(number)
            raise
        photos = self._embed(part)
        self._reader.check()
        outcome = self._write(part, photos)
        self._tally.accounted(outcome.photos)
        return PartDone(number, len(outcome.photos))

    def _embed(self, part: Part) -> list[Embedded]:
        """Every photo of the part with what the model saw, in the part's order."""
        tally, seen = self._tally, dict[tuple[str, str], int]()
        turn = next(self._turns)  # a part that was begun before goes before
        embedded: dict[int, Embedded] = {}
        batches: list[_Batch] = []
        held: list[ReadPhoto] = []
        tally.entered(Stage.READ, len(part.photos))
        unread = len(part.photos)
        try:
            for planned in part.photos:
                begun = time.perf_counter()
                photo = self._patience.do(lambda planned=planned: self._reader.read(planned))  # type: ignore[misc]
                tally.passed(Stage.READ, 1, time.perf_counter() - begun)
                unread -= 1
                if not photo.sha256:
                    embedded[planned.number] = Embedded(photo)
                    continue
                first = seen.setdefault((planned.reference, photo.sha256), planned.number)
                if first != planned.number:
                    embedded[planned.number] = Embedded(photo, of=first)
                    continue
                held.append(photo)
                if len(held) == self._batch_max:
                    batches.append(self._begin(held, turn))
                    held = []
            if held:
                batches.append(self._begin(held, turn))
            for batch in batches:
                embedded.update(self._finished(batch))
        except BaseException:
            tally.left(Stage.READ, unread)
            raise
        return [embedded[planned.number] for planned in part.photos]

    def _begin(self, photos: Sequence[ReadPhoto], turn: int) -> _Batch:
        self._tally.entered(Stage.DECODE, len(photos))
        future = self._embedding.submit([photo.content for photo in photos], turn)
        future.add_done_callback(lambda done: self._counted(done, len(photos)))
        return _Batch(tuple(photos), future)

    def _counted(self, done: Future[BulkBatch], photos: int) -> None:
        if done.cancelled() or done.exception() is not None:
            self._tally.left(Stage.DECODE, photos)
            return
        batch = done.result()
        self._tally.passed(Stage.DECODE, photos, batch.decode_s)
        self._tally.entered(Stage.EMBED, photos)
        self._tally.passed(Stage.EMBED, photos, batch.embed_s)

    def _finished(self, batch: _Batch) -> dict[int, Embedded]:
        done = batch.future.result()
        each_ms = 1e3 * (done.decode_s + done.embed_s) / len(batch.photos)
        return {
            read.planned.number: Embedded(read, seen, NOBODY, round(each_ms, 3))
            for read, seen in zip(batch.photos, done.photos, strict=True)
        }

    def _write(self, part: Part, photos: Sequence[Embedded]) -> PartOutcome:
        count = len(photos)
        self._tally.entered(Stage.WRITE, count)
        begun = time.perf_counter()
        try:
            outcome = self._patience.do(lambda: self._writer().write(part, photos))
            self._patience.do(lambda: self._commit(outcome))
        except BaseException:
            self._tally.left(Stage.WRITE, count)
            raise
        self._tally.passed(Stage.WRITE, count, time.perf_counter() - begun)
        return outcome

    def _commit(self, outcome: PartOutcome) -> None:
        load = self._lease.load
        document = self._documents.put_outcome(load, self._lease.fence, outcome)
        faces = sum(len(one.face_ids) for one in outcome.photos if one.became is Became.ENROLLED)
        rejected = sum(one.became is Became.REJECTED for one in outcome.photos)
        done = DonePart(outcome.part, document, len(outcome.photos), faces, rejected)
        if self._ledger.commit_part(self._lease, done) != document:
            self._documents.drop(document)
        self._documents.drop_part(load, outcome.part)

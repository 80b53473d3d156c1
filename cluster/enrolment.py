"""The enrolment service: brings children in, changes what is known of them, and takes them out.

Writes of one record take turns in this server; between servers the catalogue decides. A write that has
begun is finished even when its caller leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from catalogue.types import (
    Deletion,
    Item,
    RecordPage,
    RecordUpdate,
    RecordWrite,
    Request,
    Store,
    StoredRecord,
    WriteResult,
)
from cluster.compose import Parts
from cluster.enrolment_types import Delete, Deleted, Enrol, Enrolled, RequestName, Update, Updated
from cluster.flight import KeyedLocks, SingleFlight
from cluster.prepare import prepare
from cluster.writer import Committed, Job, Writer
from homeward.batching import MicroBatcher
from homeward.errors import HomewardError, NotFound, RecordDeleted
from homeward.ids import record_id
from index.shard_types import Pushed

Value = TypeVar("Value")
Cover = Callable[[Parts, StoredRecord, Mapping[str, bytes]], Awaitable[None]]

ENROL, UPDATE, DELETE = "EnrolRecord", "UpdateRecord", "DeleteRecord"


class Enrolment:
    """One per server. All methods are safe to call from many tasks at once."""

    def __init__(self, parts: Parts, cover: Cover | None = None) -> None:
        """`cover` has another model make its rows of what was enrolled, while models are being upgraded."""
        self._parts = parts
        self._cover = cover
        self._locks = KeyedLocks()
        self._enrolling: SingleFlight[Enrolled] = SingleFlight()
        self._changing: SingleFlight[Updated] = SingleFlight()
        self._deleting: SingleFlight[Deleted] = SingleFlight()
        writer = Writer(
            catalogue=parts.catalogue,
            photos=parts.photos,
            gallery=parts.gallery,
            live=parts.live,
            gallery_rows=parts.rows,
            eraser=parts.eraser,
            executor=parts.putting,
            galleries=parts.galleries,
        )
        self._batches: MicroBatcher[Job, Committed] = MicroBatcher(
            writer.write,
            executor=parts.blocking,
            batch_max=parts.settings.enrol.batch_max,
            queue_max=parts.settings.enrol.queue_max,
            name="enrolment",
        )
        self._recalls: MicroBatcher[Request, bytes | None] = MicroBatcher(
            self._recalled,
            executor=parts.blocking,
            batch_max=parts.settings.enrol.queue_max,
            queue_max=parts.settings.enrol.queue_max,
            name="enrolment requests",
        )

    @property
    def model_id(self) -> str:
        """The model that embeds."""
        return self._parts.embedding.model_id

    async def enrol(self, command: Enrol) -> Enrolled:
        """Create a record or add to it. One bad photo costs itself; the rest is one commit.

        Raises `RecordDeleted`, `EtagMismatch`, `RequestIdReused`, and `Overloaded` or `Unavailable`
        when model or stores cannot take it: then nothing is enrolled, and the call may be repeated.
        """
        return await self._enrolling.run(
            _flight(command.name), command.name.digest, partial(self._enrol, command)
        )

    async def update(self, command: Update) -> Updated:
        """Change attributes; the filter columns of the record's rows follow before the reply."""
        return await self._changing.run(
            _flight(command.name), command.name.digest, partial(self._update, command)
        )

    async def delete(self, command: Delete) -> Deleted:
        """Delete a child: when this returns, no search begun later finds it."""
        return await self._deleting.run(
            _flight(command.name), command.name.digest, partial(self._delete, command)
        )

    async def get(self, name: str) -> StoredRecord:
        """One record. Raises `NotFound`, also for a deleted one."""
        try:
            return await self._blocking(self._parts.catalogue.get, name)
        except RecordDeleted as error:
            raise NotFound(error.message, record_id=name) from error

    async def list(
        self, *, agency: str, gallery: str, searchable: bool | None, limit: int, page_token: str
    ) -> RecordPage:
        """A page of records; empty texts mean all."""
        return await self._blocking(
            partial(
                self._parts.catalogue.list_records,
                agency=agency or None,
                gallery=gallery or None,
                searchable=searchable,
                token=page_token,
                page_size=limit,
            )
        )

    async def photo(self, name: str, sha256: str) -> tuple[bytes, str]:
        """The bytes of one of the record's photos as they were given, and their media type."""
        record = await self.get(name)
        for photo in record.photos:
            if photo.sha256 == sha256:
                content = await self._blocking(self._parts.photos.get, record.key.agency, sha256)
                return content, photo.media_type
        raise NotFound("the record has no such photo", record_id=name, sha256=sha256)

    async def crop(self, face: str) -> bytes:
        """One enrolled face, aligned, as PNG: made anew from the stored photo."""
        stored = await self._blocking(self._parts.catalogue.face, face)
        content, _ = await self.photo(stored.record_id, stored.sha256)
        return await self._parts.embedding.crop(content, stored.landmarks)

    async def close(self) -> None:
        """Finish the writes that have begun."""
        for flight in (self._enrolling, self._changing, self._deleting):
            await flight.drain()
        await self._recalls.close()
        await self._batches.close()

    async def _enrol(self, command: Enrol) -> Enrolled:
        record, name = record_id(command.key), command.name
        done = await self._recalls.submit(_request(name, ENROL))
        if done is not None:
            return Enrolled(done, await self.get(record))
        prepared = await prepare(command.uploads, record, self._parts.embedding)
        write = RecordWrite(
            key=command.key,
            attributes=command.attributes,
            photos=prepared.writes,
            model_id=self._parts.embedding.model_id,
            request=_request(name, ENROL, partial(command.encode, prepared.outcomes)),
            reinstate=command.reinstate,
            expected_version=command.version,
        )
        async with self._locks.hold(record):
            done_now = await self._batches.submit(Job(write, prepared.contents, prepared.templates))
        if done_now.record is None:
            raise RecordDeleted("the record was enrolled, and deleted before this answer", record_id=record)
        if self._cover is not None:
            contents = {
                photo.sha256: content
                for photo, content in zip(prepared.writes, prepared.contents, strict=True)
            }
            await self._cover(self._parts, done_now.record, contents)
        assert done_now.result.response is not None  # every request has an encoder
        return Enrolled(done_now.result.response, done_now.record)

    def _recalled(self, requests: Sequence[Request]) -> Sequence[bytes | Exception | None]:
        """The answers given before; the index has caught up with those writes when this returns."""
        answers = self._parts.catalogue.recall_many(requests)
        if any(isinstance(answer, bytes) for answer in answers):
            self._parts.live.catch_up()
        return answers

    async def _update(self, command: Update) -> Updated:
        change = RecordUpdate(
            command.record_id,
            attributes=command.attributes,
            mask=command.mask,
            expected_version=command.version,
            request=_request(command.name, UPDATE, lambda result: str(result.rev).encode()),
        )
        async with self._locks.hold(command.record_id):
            result = await self._blocking(self._write_update, change)
        rev = int(result.response) if result.replayed and result.response else result.rev
        return Updated(rev, await self.get(command.record_id))

    def _write_update(self, change: RecordUpdate) -> WriteResult:
        """Commit, then rewrite the rows: also of a repeat, whose first attempt may have stopped between.

        The intent tells a restart whose rows may be behind; it stays until they are not.
        """
        parts = self._parts
        parts.live.check_loaded()
        stored = parts.catalogue.get(change.record_id)
        faces = [face.face_id for photo in stored.photos for face in photo.faces]
        items = [Item(Store.GALLERY, change.record_id, face) for face in faces]
        intents = [intent for intent in parts.catalogue.begin_intents([items]) if intent is not None]
        try:
            result = parts.catalogue.update(change)
        except HomewardError:
            with contextlib.suppress(HomewardError):  # it lapses by itself
                parts.catalogue.abandon(intents)
            raise
        rows = parts.rows.current([change.record_id])
        parts.gallery.upsert(rows)
        parts.galleries.rewrite([change.record_id])
        parts.live.catch_up([Pushed(change.record_id, result.rev, rows, ())])
        parts.catalogue.abandon(intents)
        return result

    async def _delete(self, command: Delete) -> Deleted:
        deletion = Deletion(
            command.record_id,
            reason=command.reason,
            requester=command.requester,
            request=_request(command.name, DELETE, lambda result: str(result.rev).encode()),
        )
        self._parts.live.check_loaded()
        async with self._locks.hold(command.record_id):
            result = await self._blocking(self._parts.catalogue.delete, deletion)
            await self._blocking(self._parts.live.catch_up)
        erasures = await self._blocking(self._parts.eraser.deleted, command.record_id)
        return Deleted(result.rev, erasures)

    async def _blocking(self, call: Callable[..., Value], *arguments: object) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._parts.blocking, call, *arguments)


def _flight(name: RequestName) -> str:
    return f"{name.scope}\0{name.request_id}"


def _request(
    name: RequestName, method: str, response: Callable[[WriteResult], bytes] | None = None
) -> Request:
    return Request(name.request_id, method, name.digest, name.scope, response)

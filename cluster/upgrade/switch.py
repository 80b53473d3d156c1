"""A server's way from one model to another: the catalogue says which serves, and the server follows.

The other model's side is opened beside the first as soon as its rows are complete. A switch changes which
side new calls go to; calls under way end on the side where they began. What the serving side enrols the other
one covers before the reply, so that either may serve at any moment.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import TypeVar

from catalogue.types import StoredRecord
from catalogue.upgrade_types import Upgrade, UpgradeModel, UpgradeState
from cluster.compose import Parts
from cluster.enrolment import Enrolment
from cluster.search_types import Comparison, SearchAnswer, SearchContext, SearchRequest, TemplateProbe
from cluster.startup import writer_name
from cluster.upgrade.cover import CoveredPhoto, CoverWriter, covered, enrolled_faces
from cluster.upgrade.matching import match_faces
from cluster.upgrade.servers import ServerNote, ServerNotes
from cluster.upgrade.side import Side
from homeward.call_context import CaseHash
from homeward.errors import HomewardError, PhotoRejected, Unavailable
from homeward.log_lines import where

OpenSecond = Callable[[Parts, UpgradeModel], AbstractAsyncContextManager[Parts]]
Result = TypeVar("Result")

POLL_S = 0.5
_AGAIN_S = 10.0  # after the other model could not be loaded
_IDLE_S = 0.02
SURE_S = 5.0  # so long holds what the catalogue said; who drives waits three times as long for a note

_logger = logging.getLogger(__name__)


class ModelSwitch:
    """The server's side that serves, and the one beside it if there is one. For one event loop."""

    def __init__(
        self, parts: Parts, address: str, open_second: OpenSecond, cases: CaseHash | None = None
    ) -> None:
        self._parts = parts  # those that the server began with: stores and threads are in all sides the same
        self._address = address
        self._open_second = open_second
        self._cases = cases
        self._notes = ServerNotes(parts.catalogue)
        self._name = writer_name(parts)
        self._sides: dict[str, Side] = {}
        self._stacks: dict[str, AsyncExitStack] = {}
        self._calls: dict[str, int] = {}
        self._opening: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._noted = False
        self._retired = False  # rows of the current model are being erased: its lists would lack candidates
        self._seen_at = -math.inf  # when the catalogue was asked last
        self._stepping = asyncio.Lock()
        self._current = self._add(parts)

    @property
    def current(self) -> Side:
        """The side that serves."""
        return self._current

    def open(self) -> None:
        """The first side's index is loaded."""
        self._current.open()

    async def run(self) -> None:
        """Follow the catalogue until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.step()
            except HomewardError as error:
                _logger.warning("looking for a model upgrade: %s", error.message)
            except Exception:  # one failure must not end the following
                _logger.exception("looking for a model upgrade")

    async def step(self) -> None:
        """Look once at what the catalogue says."""
        async with self._stepping:
            await self._step()

    async def _step(self) -> None:
        found = await self._look()
        if found is None:
            return
        try:
            await self._follow(found)
        finally:  # also of a server that cannot switch now: the driver has to wait for it
            await self._tell(found)

    async def _look(self) -> Upgrade | None:
        """What the catalogue says, and whether the current model's rows are still there by it."""
        asked_at = asyncio.get_running_loop().time()
        found = await self._blocking(self._parts.catalogue.upgrades.latest)
        if asked_at >= self._seen_at:
            self._seen_at = asked_at
            self._retired = found is not None and self._current.model_id not in _wanted(found)
        return found

    async def _follow(self, found: Upgrade) -> None:
        wanted = _wanted(found)
        if found.serving.model_id in self._sides and found.serving.model_id != self._current.model_id:
            await self._switch_to(self._sides[found.serving.model_id])
        self._retired = self._current.model_id not in wanted
        for model_id in [one for one in self._sides if one not in wanted]:
            if model_id != self._current.model_id:
                await self._drop(model_id)
        for model in wanted.values():
            self._begin_opening(model)

    async def close(self) -> None:
        """Close every side; the server takes no calls any more."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        for model_id in list(self._sides):
            await self._drop(model_id)
        if self._noted:
            try:
                await self._blocking(lambda: self._notes.leave(self._name))
            except HomewardError as error:
                _logger.warning("taking leave: %s", error.message)

    def enrolment(self) -> Enrolment:
        """Where enrolments go now."""
        return self._current.enrolment

    async def search(
        self, request: SearchRequest, wait_s: float, write: Callable[[SearchAnswer], Result]
    ) -> tuple[SearchAnswer, Result]:
        """See `Searcher.search`. A template goes to the model that made it, as long as that is loaded, and a
        request to the model that it names, or `Unavailable` (MODEL_NOT_LOADED) is raised."""
        await self._check_kept()
        side = self._side_for(request)
        with self._call(side):
            return await side.searcher.search(request, wait_s, write)

    async def compare(
        self, context: SearchContext, photos: tuple[bytes, bytes], ordinals: tuple[int | None, int | None]
    ) -> Comparison:
        """See `Searcher.compare`."""
        await self._check_kept()
        side = self._current
        with self._call(side):
            return await side.searcher.compare(context, photos, ordinals)

    def _side_for(self, request: SearchRequest) -> Side:
        if request.model_id:
            side = self._sides.get(request.model_id)
            if side is None:
                raise Unavailable(
                    f"{request.model_id} is not loaded here; {', '.join(sorted(self._sides))} is",
                    code="MODEL_NOT_LOADED",
                    field="model_id",
                )
            return side
        if isinstance(request.probe, TemplateProbe):
            return self._sides.get(request.probe.model_id, self._current)
        return self._current

    async def _check_kept(self) -> None:
        if asyncio.get_running_loop().time() - self._seen_at > SURE_S:
            await self._look()  # this process stood still, or has not looked yet: who drives took it for dead
        if self._retired:
            raise Unavailable(
                "this server is loading the model that serves now; try again, or at another server",
                code="MODEL_LOADING",
            )

    async def _switch_to(self, side: Side) -> None:
        await self._blocking(side.parts.live.catch_up)
        _logger.info("serving with %s, no more with %s", side.model_id, self._current.model_id)
        self._current = side

    def _begin_opening(self, model: UpgradeModel) -> None:
        loop = asyncio.get_running_loop()
        busy = self._opening is not None and not self._opening.done()
        if model.model_id in self._sides or busy or loop.time() < self._not_before:
            return
        self._not_before = loop.time() + _AGAIN_S
        self._opening = asyncio.create_task(self._open(model), name="open-second-model")

    async def _open(self, model: UpgradeModel) -> None:
        """Load model and index beside those that serve."""
        _logger.info("loading %s beside %s", model.model_id, self._current.model_id)
        stack = AsyncExitStack()
        try:
            parts = await stack.enter_async_context(self._open_second(self._parts, model))
            if parts.router is None:
                await self._blocking(parts.follower.load)
        except BaseException as error:
            await stack.aclose()
            if not isinstance(error, Exception):
                raise
            said = error.message if isinstance(error, HomewardError) else where(error)
            _logger.error("%s was not loaded, trying again soon: %s", model.model_id, said)  # noqa: TRY400
            return
        side = self._add(parts)
        self._stacks[model.model_id] = stack
        side.open()
        _logger.info("%s is loaded", model.model_id)

    def _add(self, parts: Parts) -> Side:
        side = Side(parts, self._cover_elsewhere, self._cases)
        self._sides[side.model_id] = side
        self._calls[side.model_id] = 0
        return side

    async def _drop(self, model_id: str) -> None:
        """Let a side's calls end, then close it."""
        side = self._sides.pop(model_id)
        while self._calls[model_id]:  # noqa: ASYNC110 - counted down by the calls themselves
            await asyncio.sleep(_IDLE_S)
        await side.close()
        stack = self._stacks.pop(model_id, None)
        if stack is not None:  # the first side's parts are the server's to close
            await stack.aclose()
        _logger.info("%s is not loaded any more", model_id)

    async def _tell(self, found: Upgrade) -> None:
        if found.ended:
            if self._noted:
                await self._blocking(lambda: self._notes.leave(self._name))
                self._noted = False
            return
        note = ServerNote(
            name=self._name,
            address=self._address,
            serving=self._current.model_id,
            loaded=tuple(sorted(self._sides)),
        )
        await self._blocking(lambda: self._notes.tell(note))
        self._noted = True

    async def _cover_elsewhere(
        self, parts: Parts, record: StoredRecord, contents: Mapping[str, bytes]
    ) -> None:
        """Have the other side's model cover what was just enrolled. What it cannot do here - a face that its
        detector does not find, a store that fails - is left to the upgrade's next pass."""
        for side in list(self._sides.values()):
            if side.model_id == parts.embedding.model_id:
                continue
            try:
                with self._call(side):
                    made = await _covered(side.parts, record, contents, parts.embedding.model_id)
                    if made:
                        writer = CoverWriter(parts.catalogue, side.parts.rows, side.model_id)
                        await self._blocking(lambda writer=writer, made=made: writer.write(made))  # type: ignore[misc]
            except HomewardError as error:
                _logger.warning("%s is left to the upgrade's next pass: %s", record.record_id, error.message)

    @contextmanager
    def _call(self, side: Side) -> Iterator[None]:
        self._calls[side.model_id] += 1
        try:
            yield
        finally:
            self._calls[side.model_id] -= 1

    async def _blocking(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._parts.blocking, work)


def _wanted(found: Upgrade) -> dict[str, UpgradeModel]:
    """The models that a server should have loaded, by id."""
    models = [found.serving]
    if found.standby is not None and found.state is not UpgradeState.EMBEDDING:
        models.append(found.standby)
    return {model.model_id: model for model in models}


async def _covered(
    parts: Parts, record: StoredRecord, contents: Mapping[str, bytes], other: str
) -> list[CoveredPhoto]:
    """The photos of which the model finds every enrolled face, or none is enrolled."""
    made: list[CoveredPhoto] = []
    for photo in record.photos:
        content = contents.get(photo.sha256)
        if content is None:
            continue
        try:
            seen = await parts.embedding.embed(content)
        except PhotoRejected:
            continue
        found = match_faces(enrolled_faces(photo, other), seen, photo.note)
        if not found.missing:
            made.append(covered(record, photo, seen.faces, found))
    return made

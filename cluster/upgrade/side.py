"""One model's parts of a server, with the services over them; while models are upgraded there are two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from catalogue.upgrade_types import UpgradeModel
from cluster.compose import Parts, open_index, open_router
from cluster.enrolment import Cover, Enrolment
from cluster.open_snapshots import open_snapshots
from cluster.search import Searcher
from cluster.self_check import check_searches
from cluster.startup import follow, snapshot
from cluster.upgrade.models import open_bundle, settings_for
from homeward.call_context import CaseHash
from index.open import open_gallery
from workers.calibrate import load_calibration


class Side:
    """A model with its index, its searches and its enrolments. For one event loop."""

    def __init__(self, parts: Parts, cover: Cover, cases: CaseHash | None = None) -> None:
        self.parts = parts
        self.searcher = Searcher(parts, cases)
        self.enrolment = Enrolment(parts, cover)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def model_id(self) -> str:
        """Of whose templates it is."""
        return self.parts.embedding.model_id

    def open(self) -> None:
        """The index is loaded: follow the change log, and answer."""
        for work, name in (
            (follow(self.parts), "follow-change-log"),
            (snapshot(self.parts), "snapshot"),
            (check_searches(self.parts.self_check), "self-check"),
        ):
            self._tasks.append(asyncio.create_task(work, name=name))
        self.searcher.open()

    async def close(self) -> None:
        """Finish what was accepted, then end what runs beside."""
        await self.enrolment.close()
        await self.searcher.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def second_parts(parts: Parts, model: UpgradeModel) -> AsyncIterator[Parts]:
    """The parts of another model in the same process: stores, log and threads are shared. Its index is not
    loaded yet.

    Raises what `open_bundle` and the stores raise."""
    settings = settings_for(parts.settings, model.bundle)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        embedding = await open_bundle(settings, model)
        stack.push_async_callback(embedding.close)
        gallery = await loop.run_in_executor(
            parts.blocking, open_gallery, settings.gallery, settings.data_dir, model.model_id, model.dimension
        )
        stack.callback(gallery.close)
        router = None
        if parts.router is not None:
            router = open_router(settings, parts.catalogue, gallery, embedding, parts.blocking)
            await router.open()
            stack.push_async_callback(router.close)
        index = open_index(settings, model.dimension)
        stack.callback(index.close)
        opened = replace(
            parts,
            settings=settings,
            gallery=gallery,
            index=index,
            embedding=embedding,
            router=router,
            calibration=load_calibration(settings.bundles_dir, model.model_id),
            snapshots=await loop.run_in_executor(
                parts.blocking, open_snapshots, settings, parts.catalogue, model.model_id, model.dimension
            ),
        )
        stack.callback(opened.galleries.close)
        yield opened

"""What a server does beside its calls: loads the index, follows the change log, finishes deletions."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from collections.abc import Callable
from datetime import datetime, timedelta

from cluster.compose import Parts
from cluster.snapshot_writer import SnapshotWriter
from homeward.errors import HomewardError

SWEEP_S = 30.0
INTENT_LIFE = timedelta(hours=1)  # no write takes so long: its writer is dead

_logger = logging.getLogger(__name__)


async def load_index(parts: Parts) -> None:
    """Fill the index, and finish what the last run left undone. Writes are refused until then."""
    await asyncio.get_running_loop().run_in_executor(parts.blocking, _load, parts)


async def follow(parts: Parts) -> None:
    """Poll the change log for other servers' writes; runs until it is cancelled. Shards do so themselves."""
    loop = asyncio.get_running_loop()
    while parts.router is None:
        await asyncio.sleep(parts.settings.search.follow_interval_s)
        try:
            await loop.run_in_executor(parts.blocking, parts.follower.poll)
        except HomewardError as error:
            _logger.warning("following the change log: %s", error.message)
        except Exception:  # one failure must not end the following
            _logger.exception("following the change log")


async def snapshot(parts: Parts) -> None:
    """Write snapshots of the index that are due, now and then; runs until it is cancelled. Shards write
    their own."""
    if not parts.settings.index.snapshot_interval_s or parts.router is not None:
        return
    writer = SnapshotWriter(
        parts.snapshots,
        parts.index,
        parts.catalogue,
        lambda: parts.follower.held,
        writer_name(parts),
        model_id=parts.embedding.model_id,
        settings=parts.settings.index,
        clock=parts.clock,
    )
    loop = asyncio.get_running_loop()
    swept = False
    while True:
        await asyncio.sleep(parts.settings.index.snapshot_interval_s)
        try:
            if not swept:
                await loop.run_in_executor(parts.blocking, parts.snapshots.sweep)
                swept = True
            while await loop.run_in_executor(parts.blocking, writer.step):
                pass
        except HomewardError as error:
            _logger.warning("writing snapshots: %s", error.message)
        except Exception:  # nor the snapshots
            _logger.exception("writing snapshots")


async def sweep(current: Callable[[], Parts]) -> None:
    """End what dead writers began and finish deletions, now and then; runs until it is cancelled. `current`
    are the parts of the model that serves."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            parts = current()
            before = parts.clock.now() - INTENT_LIFE
            await loop.run_in_executor(parts.blocking, _sweep, parts, before)
        except Exception:  # nor the sweeping
            _logger.exception("sweeping")


def writer_name(parts: Parts) -> str:
    """Another one for each server: each has its data folder to itself."""
    place = f"{socket.gethostname()}:{parts.settings.data_dir.absolute()}"
    return f"server-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def _load(parts: Parts) -> None:
    started = parts.clock.now()
    alone = not parts.settings.catalogue.uri  # so what is half-written or announced is a dead writer's
    if alone:
        parts.photos.sweep(0.0)
    if parts.router is None:
        parts.follower.load()
        _warn_of_another_model(parts)
    _sweep(parts, started if alone else started - INTENT_LIFE)


def _warn_of_another_model(parts: Parts) -> None:
    """Of records that were all enrolled with another model none would ever be found, without a word."""
    if parts.index.rows:
        return
    face = next(parts.catalogue.all_faces(), None)
    if face is not None and face.model_id != parts.embedding.model_id:
        _logger.error(
            "nobody can be found: the records here were enrolled with %s, and %s serves; set workers.bundle "
            "to the model they were enrolled with, and change it by homeward models migrate",
            face.model_id,
            parts.embedding.model_id,
        )


def _sweep(parts: Parts, dead_before: datetime) -> None:
    """End the intents begun before that time, remove what must go, rewrite files when that is due."""
    try:
        for rows in (parts.rows, *parts.galleries.others()):
            rows.rewrite_intended(dead_before)
        parts.catalogue.expire_intents(dead_before)
        parts.eraser.sweep()
        for store in parts.eraser.rewrite_due():
            level = logging.INFO if store.erased or not store.note else logging.WARNING
            _logger.log(level, "rewrote %s: %s", store.store, store.note or "nothing deleted is left")
    except HomewardError as error:
        _logger.warning("sweeping: %s", error.message)

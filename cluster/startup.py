"""What a server does beside its calls: loads the index, follows the change log, finishes deletions."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from cluster.compose import Parts
from homeward.errors import HomewardError

SWEEP_S = 30.0
INTENT_LIFE = timedelta(hours=1)  # no write takes so long: its writer is dead

_logger = logging.getLogger(__name__)


async def load_index(parts: Parts) -> None:
    """Fill the resident index, and finish what the last run left undone. Writes are refused until then."""
    await asyncio.get_running_loop().run_in_executor(parts.blocking, _load, parts)


async def follow(parts: Parts) -> None:
    """Poll the change log for other servers' writes; runs until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(parts.settings.search.follow_interval_s)
        try:
            await loop.run_in_executor(parts.blocking, parts.follower.catch_up)
        except HomewardError as error:
            _logger.warning("following the change log: %s", error.message)
        except Exception:  # one failure must not end the following
            _logger.exception("following the change log")


async def sweep(parts: Parts) -> None:
    """End what dead writers began and finish deletions, now and then; runs until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            before = parts.clock.now() - INTENT_LIFE
            await loop.run_in_executor(parts.blocking, _sweep, parts, before)
        except Exception:  # nor the sweeping
            _logger.exception("sweeping")


def _load(parts: Parts) -> None:
    started = parts.clock.now()
    alone = not parts.settings.catalogue.uri  # so what is half-written or announced is a dead writer's
    if alone:
        parts.photos.sweep(0.0)
    parts.follower.load()
    _sweep(parts, started if alone else started - INTENT_LIFE)


def _sweep(parts: Parts, dead_before: datetime) -> None:
    """End the intents begun before that time, remove what must go, rewrite files when that is due."""
    try:
        parts.follower.rewrite_intended(dead_before)
        parts.catalogue.expire_intents(dead_before)
        parts.eraser.sweep()
        if parts.eraser.is_due():
            for store in parts.eraser.rewrite():
                _logger.info("rewrote %s: %s", store.store, store.note or "nothing deleted is left")
    except HomewardError as error:
        _logger.warning("sweeping: %s", error.message)

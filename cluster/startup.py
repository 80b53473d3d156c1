"""What a server does beside its calls: loads the index, follows the change log, finishes deletions."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from cluster.compose import Parts
from homeward.errors import HomewardError

SWEEP_S = 30.0
INTENT_LIFE = timedelta(hours=1)  # no write takes so long: its writer is dead

_logger = logging.getLogger(__name__)


async def load_index(parts: Parts) -> None:
    """Fill the resident index, and finish what the last run left undone."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(parts.blocking, parts.follower.load)
    await loop.run_in_executor(parts.blocking, _sweep, parts, not parts.settings.catalogue.uri)


async def follow(parts: Parts) -> None:
    """Poll the change log for other servers' writes, and sweep; runs until it is cancelled."""
    loop = asyncio.get_running_loop()
    swept = parts.clock.monotonic()
    while True:
        await asyncio.sleep(parts.settings.search.follow_interval_s)
        try:
            await loop.run_in_executor(parts.blocking, parts.follower.catch_up)
            if parts.clock.monotonic() - swept > SWEEP_S:
                swept = parts.clock.monotonic()
                await loop.run_in_executor(parts.blocking, _sweep, parts, False)
        except HomewardError as error:
            _logger.warning("following the change log: %s", error.message)


def _sweep(parts: Parts, alone: bool) -> None:
    """`alone`: nobody else writes to this catalogue, so that every intent is a dead writer's."""
    try:
        now = parts.clock.now()
        parts.catalogue.expire_intents(now + timedelta(seconds=1) if alone else now - INTENT_LIFE)
        parts.eraser.sweep()
        if parts.eraser.is_due():
            for store in parts.eraser.rewrite():
                _logger.info("rewrote %s: %s", store.store, store.note or "nothing deleted is left")
    except HomewardError as error:
        _logger.warning("sweeping: %s", error.message)

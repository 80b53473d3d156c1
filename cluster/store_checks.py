"""Asks a server's stores now and then whether they answer, so that one that does not is known before a call
needs it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from cluster.compose import Parts
from homeward.errors import HomewardError
from homeward.telemetry import Level, Operation, Reading, emit

ANSWER_S = 10.0  # a store that takes longer counts as one that does not answer
_NOBODY = "0" * 32
_NOTHING = "0" * 64
_AGENCY = "homeward-check"  # of which no photo is asked for in earnest

_logger = logging.getLogger(__name__)


class StoreChecks:
    """What the stores of one server said last. `run` for one event loop, `readings` from any thread."""

    def __init__(self, current: Callable[[], Parts]) -> None:
        """`current`: the parts of the model that serves, for it may be switched."""
        self._every_s = current().settings.telemetry.store_check_s
        self._asked: dict[str, Callable[[], object]] = {
            "catalogue": current().catalogue.rev,  # the same whichever serves
            "gallery": lambda: current().gallery.get([_NOBODY]),
            "photos": lambda: current().photos.exists(_AGENCY, _NOTHING),
        }
        self._up: dict[str, bool] = {}

    def readings(self) -> Iterator[Reading]:
        """Nothing of a store that was not asked yet."""
        for store, up in list(self._up.items()):
            yield Reading(Level.STORE_UP, float(up), store)

    async def run(self) -> None:
        """Ask until cancelled. A store that hangs holds up nobody else."""
        if not self._every_s:
            return
        await asyncio.gather(*(self._keep_asking(store) for store in self._asked))

    async def _keep_asking(self, store: str) -> None:
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix=f"check-{store}")
        try:
            while True:
                begun = time.monotonic()
                asked = loop.run_in_executor(executor, self._ask, store)
                done, _ = await asyncio.wait([asked], timeout=ANSWER_S)
                if not done:
                    self._note(store, "it does not answer")
                self._note(store, await asked)
                await asyncio.sleep(max(0.0, self._every_s - (time.monotonic() - begun)))
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _ask(self, store: str) -> str:
        """Why it did not answer; empty when it did."""
        started = time.perf_counter()
        said, reason = "", ""
        try:
            self._asked[store]()
        except HomewardError as error:
            said, reason = error.message, str(error.code)
        except Exception as error:  # noqa: BLE001 - whatever it is, the store was of no use
            said = reason = type(error).__name__
        spent = time.perf_counter() - started
        emit(Operation(f"check {store}", "UNAVAILABLE" if said else "OK", spent, reason=reason))
        return said

    def _note(self, store: str, failure: str) -> None:
        if failure and self._up.get(store, True):
            _logger.warning("store %s: %s", store, failure)
        elif not failure and not self._up.get(store, True):
            _logger.info("store %s answers again", store)
        self._up[store] = not failure

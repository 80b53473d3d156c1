"""Two small things that order concurrent calls inside one server: keyed locks and single flights.

Between servers the catalogue decides; these only spare it conflicts that one process can see coming.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from homeward.errors import RequestIdReused

Result = TypeVar("Result")


@dataclass(slots=True)
class _Held:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class KeyedLocks:
    """One asyncio lock per key, kept only while somebody holds or awaits it."""

    def __init__(self) -> None:
        self._held: dict[Hashable, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the key's lock; waiters get it in the order they came."""
        held = self._held.setdefault(key, _Held())
        held.users += 1
        try:
            async with held.lock:
                yield
        finally:
            held.users -= 1
            if not held.users:
                del self._held[key]

    @asynccontextmanager
    async def hold_all(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Hold several keys' locks. Taken in sorted order, so that two callers cannot block each other."""
        async with AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                await stack.enter_async_context(self.hold(key))
            yield


class SingleFlight(Generic[Result]):
    """Concurrent calls with one request id do the work once and share its answer.

    The work runs in a task of its own: a caller that leaves takes nothing from the others, and a
    write that has begun is finished.
    """

    def __init__(self) -> None:
        self._running: dict[str, tuple[str, asyncio.Task[Result]]] = {}

    async def run(self, request_id: str, digest: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """The work's answer. Raises `RequestIdReused` while the id runs with another digest."""
        running = self._running.get(request_id)
        if running is None:

            async def task() -> Result:
                try:
                    return await work()
                finally:
                    del self._running[request_id]

            running = digest, asyncio.create_task(task(), name=f"request-{request_id[:16]}")
            self._running[request_id] = running
        elif running[0] != digest:
            raise RequestIdReused(
                "this request_id is in use for a request with another content; make a new one",
                field="request_id",
            )
        return await asyncio.shield(running[1])

    async def drain(self) -> None:
        """Wait until nothing runs."""
        while self._running:
            await asyncio.gather(*(task for _, task in self._running.values()), return_exceptions=True)

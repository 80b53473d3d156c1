"""What takes long to open and is needed later: opened beside other work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

Opened = TypeVar("Opened")


class Ahead(Generic[Opened]):
    """Opens a context in a thread of its own, at once. Thread-safe; a context that closes what was opened."""

    def __init__(self, open_it: Callable[[], AbstractContextManager[Opened]]) -> None:
        self._open = open_it
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="open")
        self._opened: Future[Opened] = self._begin()

    def get(self) -> Opened:
        """What was opened; waits for it. Raises what opening raised, and then the next call opens again."""
        with self._lock:
            try:
                return self._opened.result()
            except BaseException:
                self._opened = self._begin()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self._stack.close()

    def _begin(self) -> Future[Opened]:
        return self._executor.submit(lambda: self._stack.enter_context(self._open()))

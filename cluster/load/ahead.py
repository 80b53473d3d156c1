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
    """Opens a context in a thread of its own, which closes it, too. Thread-safe; a context itself."""

    def __init__(self, open_it: Callable[[], AbstractContextManager[Opened]]) -> None:
        self._open = open_it
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="open")
        self._opened: Future[Opened] | None = None

    def begin(self) -> None:
        """Open it, if that was not begun yet."""
        with self._lock:
            self._begun()

    def get(self) -> Opened:
        """What was opened; waits for it. Raises what opening raised, and then the next call opens again."""
        with self._lock:
            try:
                return self._begun().result()
            except BaseException:
                self._opened = None
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._executor:  # the same thread, which lives until then: what is opened may hang on it
            self._executor.submit(self._stack.close).result()

    def _begun(self) -> Future[Opened]:
        if self._opened is None:
            self._opened = self._executor.submit(lambda: self._stack.enter_context(self._open()))
        return self._opened

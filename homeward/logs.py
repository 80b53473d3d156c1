"""Logs: one line a call and a line for whatever went wrong, made and written in a thread of their own."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from homeward.call_context import current_ids
from homeward.config import TelemetrySettings
from homeward.log_lines import JsonFormatter, Said, TextFormatter, where
from homeward.telemetry import CallEnded, Operation, PhotoUnused, SelfChecked, StoreFailed

PACKAGES = ("homeward", "catalogue", "photos", "workers", "index", "cluster")
_TOGETHER_S = 0.25
_AT_ONCE_S = 0.1  # so long a warning is waited for
_LINES = 20_000  # that wait at most

_LEVELS = {
    "INTERNAL": logging.ERROR,
    "DATA_LOSS": logging.ERROR,
    "UNAVAILABLE": logging.WARNING,
    "RESOURCE_EXHAUSTED": logging.WARNING,
}
_SAID = frozenset({"OK", "CANCELLED"})


class LogSink:
    """A line for each call, and for what failed on its way; one for every operation at debug."""

    def __init__(self, logger: logging.Logger, together: _Together | None = None) -> None:
        """With `together` its thread makes the lines, below a warning: whoever serves calls makes none."""
        self._logger = logger
        self._together = together

    def __call__(self, event: Operation) -> None:
        """Log the event."""
        if (
            type(event) is Operation
            and event.outcome in _SAID
            and not self._logger.isEnabledFor(logging.DEBUG)
        ):
            return  # most of all events
        level = _level(event)
        if not self._logger.isEnabledFor(level):
            return
        said = Said(event, level, event.request_id or current_ids(), time.time())
        if self._together is None or level >= logging.WARNING:
            self._logger.handle(said.record(self._logger.name))
        else:
            self._together.put(said, self._logger.name)


def _level(event: Operation) -> int:
    if type(event) is Operation and event.outcome in _SAID:
        return logging.DEBUG
    if isinstance(event, PhotoUnused):
        return logging.DEBUG
    is_said = isinstance(event, SelfChecked | StoreFailed)
    if not is_said and not (event.request_id or current_ids()):  # what is tried again and again by itself
        return logging.DEBUG
    if event.outcome not in _SAID or isinstance(event, StoreFailed):
        return _LEVELS.get(event.outcome, logging.INFO)
    return logging.INFO if is_said or isinstance(event, CallEnded) else logging.DEBUG


class _Together(logging.Handler):
    """Makes and writes the lines of a moment together, in a thread of its own: one by one, between calls,
    each takes several times as long, and each write lets go of the interpreter. From a warning on lines are
    waited for, but not long: whoever reads them no more stops nobody, and lines beyond `_LINES` are counted
    and lost."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: list[Callable[[], str]] = []
        self._lost = self._added = self._written = 0
        self._stuck = False  # somebody waited in vain, and nothing was written since
        self._changing = threading.Condition()  # of what waits; never held while a line is made or written
        self._wake = threading.Event()
        self._end = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - the library's way: a line that fails costs itself
            self.handleError(record)
        else:
            self._add(lambda: line)
        if record.levelno >= logging.WARNING:
            self.flush(0.0 if self._stuck else _AT_ONCE_S)

    def put(self, said: Said, logger: str) -> None:
        """Make a line of it soon."""
        self._add(lambda: self.format(said.record(logger)))

    def flush(self, wait_s: float = 2.0) -> None:
        """Have written what waits; for so long it is waited for."""
        if not self._thread.is_alive():  # it has ended, or this is a fork
            self._write()
        elif threading.current_thread() is not self._thread:
            with self._changing:
                upto = self._added
                self._wake.set()
                self._stuck = not self._changing.wait_for(lambda: self._written >= upto, wait_s)

    def close(self) -> None:
        """Write what waits, and end."""
        self._end = True
        self._wake.set()
        self._thread.join(2.0)
        atexit.unregister(self.flush)
        super().close()

    def _add(self, make: Callable[[], str]) -> None:
        with self._changing:
            if len(self._waiting) >= _LINES:
                self._lost += 1
                return
            self._waiting.append(make)
            self._added += 1

    def _run(self) -> None:
        while not self._end:
            self._wake.wait(_TOGETHER_S)
            self._wake.clear()
            self._write()

    def _write(self) -> None:
        with self._changing:
            waiting, self._waiting = self._waiting, []
            lost, self._lost = self._lost, 0
        said = [*map(_made, waiting)]
        if lost:
            text = f"{lost} lines of the log are lost: they were not read in time"
            record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)
            said.append(_made(lambda: self.format(record)))
        if said:
            with suppress(OSError, ValueError):  # nobody reads any more
                self._stream.write("".join(said))
                self._stream.flush()
        with self._changing:
            self._written += len(waiting)
            self._stuck = False
            self._changing.notify_all()


def _made(make: Callable[[], str]) -> str:
    try:
        return f"{make()}\n"
    except Exception as error:  # noqa: BLE001 - a line that fails costs itself
        return f"a line of the log could not be made: {where(error)}\n"


@contextmanager
def logging_to(settings: TelemetrySettings, process: str, stream: IO[str] | None = None) -> Iterator[LogSink]:
    """Have this process log as the settings say, to `stream` (stderr) while the context lasts; what libraries
    say from a warning on. Yields the sink that logs events."""
    handler = _Together(stream or sys.stderr)
    formatter = JsonFormatter if settings.log_format == "json" else TextFormatter
    handler.setFormatter(formatter(process))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root = logging.getLogger()
    own = [logging.getLogger(name) for name in PACKAGES]
    before = [(one, one.level) for one in (root, *own)]
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    for one in own:
        one.setLevel(level)
    try:
        yield LogSink(logging.getLogger("homeward.calls"), handler)
    finally:
        root.removeHandler(handler)
        handler.close()
        for one, was in before:
            one.setLevel(was)

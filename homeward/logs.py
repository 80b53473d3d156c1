"""Logs: one line a call and a line for whatever went wrong, as JSON for machines or as text for people.

No line holds the text of a foreign exception, which may quote what was being worked on: only its type and
where it came from.
"""

from __future__ import annotations

import atexit
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import IO

from homeward.call_context import current_ids
from homeward.config import TelemetrySettings
from homeward.telemetry import Batched, CallEnded, Operation, PhotoUnused, SelfChecked, StoreFailed

PACKAGES = ("homeward", "catalogue", "photos", "workers", "index", "cluster")
_FIELDS = "homeward_fields"  # of a record: what it says besides its message
_FRAMES = 8
_TOGETHER_S = 0.25
_AT_ONCE_S = 0.1  # so long a warning is waited for
_LINES = 20_000  # that wait at most

_LEVELS = {
    "INTERNAL": logging.ERROR,
    "DATA_LOSS": logging.ERROR,
    "UNAVAILABLE": logging.WARNING,
    "RESOURCE_EXHAUSTED": logging.WARNING,
}
_encode = json.JSONEncoder(default=str).encode
_SAID = frozenset({"OK", "CANCELLED"})


@dataclass(frozen=True, slots=True)
class _Said:
    """An event that is to be a line."""

    event: Operation
    level: int
    ids: str
    at: float  # seconds since 1970

    def record(self, logger: str) -> logging.LogRecord:
        """What is empty is left out."""
        event = self.event
        fields: dict[str, object] = {"outcome": event.outcome, "ms": _ms(event.seconds)}
        if self.ids:
            fields["request_id"] = self.ids
        for name in ("reason", "incident"):
            if value := getattr(event, name):
                fields[name] = value
        if isinstance(event, CallEnded):
            if event.case:
                fields["case"] = event.case
            if event.stages:
                fields["stages_ms"] = {stage: _ms(spent) for stage, spent in list(event.stages.items())}
        elif isinstance(event, Batched):
            fields["items"] = event.items
        elif isinstance(event, SelfChecked):
            for name in ("recall", "score_error", "rows_read", "left_out"):
                fields[name] = getattr(event, name)
        # Not by the logger's own methods, which look for the line of code that called: it is always this one.
        record = logging.LogRecord(logger, self.level, "", 0, event.name, None, None)
        record.created, record.msecs = self.at, self.at % 1 * 1e3
        setattr(record, _FIELDS, fields)
        return record


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
        said = _Said(event, level, event.request_id or current_ids(), time.time())
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


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


@lru_cache(4)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class _Formatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def formatException(  # noqa: N802 - the library's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        return "" if ei[1] is None else where(ei[1])

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What the line says, in order."""
        said: dict[str, object] = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        own = getattr(record, _FIELDS, None)
        if own is not None:
            said |= own
        elif ids := current_ids():
            said["request_id"] = ids
        if record.exc_info and record.exc_info[1] is not None:
            said["error"] = where(record.exc_info[1])
        return said


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return _encode(self.fields(record))


class TextFormatter(_Formatter):
    """For people. Control characters of a message cannot begin another line."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        said = self.fields(record)
        head = [str(said.pop(name)) for name in ("time", "level", "process", "logger", "message")]
        line = " ".join((*head, *(f"{name}={_plain(value)}" for name, value in said.items())))
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{one}" for name, one in value.items())
    return str(value)


def where(error: BaseException) -> str:
    """Type and place of an exception, without its text."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    cause = f" from {type(error.__cause__).__name__}" if error.__cause__ else ""
    return f"{type(error).__name__}{cause} at {' > '.join(frames[-_FRAMES:])}"


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

    def put(self, said: _Said, logger: str) -> None:
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

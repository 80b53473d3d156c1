"""Lines of a log: what an event says, and how a line is written, as JSON for machines or as text for people.

No line holds the text of a foreign exception, which may quote what was being worked on: only its type and
where it came from.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType

from homeward.call_context import current_ids
from homeward.telemetry import Batched, CallEnded, Operation, SelfChecked

_FIELDS = "homeward_fields"  # of a record: what it says besides its message
_FRAMES = 8
_encode = json.JSONEncoder(default=str).encode


@dataclass(frozen=True, slots=True)
class Said:
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

"""The log's stream may be slow, stuck or gone: calls go on."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from homeward import logs
from homeward.config import TelemetrySettings
from homeward.logs import logging_to

_MANY = 3000  # lines: more than a pipe holds


def test_a_log_that_nobody_reads_stops_no_call_and_says_later_what_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "_LINES", _MANY // 2)
    reading, writing = os.pipe()
    said, read = threading.Event(), list[bytes]()

    def call() -> None:
        with os.fdopen(writing, "w") as stream, logging_to(TelemetrySettings(), "server", stream):
            logger = logging.getLogger("homeward.calls")
            for _ in range(2):  # the first half is stuck in the pipe
                for number in range(_MANY):
                    logger.info("line %d %s", number, "x" * 100)
                logger.warning("a warning")
            said.set()
            drained.wait(30)

    drained = threading.Event()
    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    assert said.wait(30)

    def drain() -> None:
        with os.fdopen(reading, "rb") as lines:
            read.extend(lines)

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    drained.set()
    caller.join(30)
    reader.join(30)
    assert not reader.is_alive()
    assert any(b"lines of the log are lost" in line for line in read)


def test_a_warning_is_written_when_the_logger_returns(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream, logging_to(TelemetrySettings(), "server", stream):
        logging.getLogger("homeward.calls").info("before")
        logging.getLogger("homeward.calls").warning("at once")
        assert [line.split()[4] for line in path.read_text().splitlines()] == ["before", "at"]

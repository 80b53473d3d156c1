"""The search log: one line on disk for every search, before its answer leaves.

Lines are JSON objects in ASCII, so that no caller's text can end a line or fake another; each
carries the SHA-256 of the line before it, across files, so that a changed, inserted or removed line
shows (`cluster.searchlog_verify`). Searches that wait at the same time share one fsync.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NewType, Self

from homeward.clock import Clock, SystemClock
from homeward.errors import StoreUnavailable
from homeward.telemetry import store_failed

MIB = 1024 * 1024
ORIGIN = "0" * 64  # what the first line of all carries as its predecessor's hash
PATTERN = "searches-????????.jsonl"

_logger = logging.getLogger(__name__)

Entry = Mapping[str, Any]
Body = NewType("Body", str)  # of a line: an entry's JSON without its braces


def line_hash(line: bytes) -> str:
    """SHA-256 of a line without its newline, as the next line carries it."""
    return hashlib.sha256(line).hexdigest()


def log_files(folder: Path) -> list[Path]:
    """The files of the log, oldest first."""
    return sorted(folder.glob(PATTERN))


@dataclass(slots=True)
class _Lines:
    """What one caller waits for."""

    bodies: Sequence[Body]
    done: bool = False
    failure: StoreUnavailable | None = None


class SearchLog:
    """Appends to the log in `folder`. Open while the context lasts; one process at a time.

    Files are readable by their owner alone, are rotated at `file_bytes`, and are never rewritten: a
    torn last line, left by a crash, is moved to a file of its own, and the chain says so.
    """

    def __init__(self, folder: Path, clock: Clock | None = None, *, file_bytes: int = 64 * MIB) -> None:
        self._folder = folder
        self._clock = clock or SystemClock()
        self._file_bytes = file_bytes
        self._waiting: list[_Lines] = []
        self._is_open = False
        self._is_writing = False  # whoever does writes for all that wait
        self._changed = threading.Condition()
        self._handle: int | None = None
        self._number = 0  # of the current file
        self._size = 0  # its bytes that are known to be whole lines on disk
        self._previous = ORIGIN
        self._sequence = 0

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open()
        except OSError as error:
            raise _refusal(error) from error
        self._is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what waits, then close."""
        with self._changed:
            self._is_open = False
            self._changed.wait_for(lambda: not (self._waiting or self._is_writing))
        self._close()

    def append(self, bodies: Sequence[Body]) -> None:
        """Write a line for each; when it returns they are on disk. Blocks.

        The log adds `seq`, `time` and `prev`. Callers that wait at the same time share one write: one of them
        writes for all. Raises `StoreUnavailable` when the lines could not be written, none of them: the
        searches must then not be answered.
        """
        lines = _Lines(bodies)
        with self._changed:
            if not self._is_open:
                raise StoreUnavailable("the search log is closed", store="search log")
            self._waiting.append(lines)
            self._changed.wait_for(lambda: lines.done or not self._is_writing)
            batch: list[_Lines] = []
            if not lines.done:
                self._is_writing = True
                batch, self._waiting = self._waiting, []
        if batch:
            failure: StoreUnavailable | None = StoreUnavailable("the process is ending", store="search log")
            try:
                failure = self._commit(batch)
            finally:
                with self._changed:
                    self._is_writing = False
                    for each in batch:
                        each.done, each.failure = True, failure
                    self._changed.notify_all()
        if lines.failure is not None:
            raise lines.failure

    def _commit(self, batch: Sequence[_Lines]) -> StoreUnavailable | None:
        """Write them; why they could not be written."""
        try:
            self._write([body for lines in batch for body in lines.bodies])
        except OSError as error:
            _logger.error("search log: %s", error.strerror)  # noqa: TRY400 - the trace says nothing more
            return _refusal(error)
        except Exception:  # whoever waits here must hear of it
            _logger.exception("search log")
            return StoreUnavailable("the search log could not be written", store="search log")
        return None

    def _write(self, bodies: Sequence[Body]) -> None:
        if self._handle is None:  # an earlier write failed: begin again from what the disk holds
            self._open()
        elif self._size >= self._file_bytes:
            self._close()
            self._create(self._number + 1)
        handle = self._handle
        assert handle is not None
        previous, sequence = self._previous, self._sequence
        block = bytearray()
        time = self._clock.now().isoformat()
        for body in bodies:
            sequence += 1
            line = f'{{"seq":{sequence},"time":"{time}",{body},"prev":"{previous}"}}'.encode("ascii")
            previous = line_hash(line)
            block += line + b"\n"
        try:
            _write_all(handle, block)
            os.fdatasync(handle)
        except BaseException:
            # The lines of refused searches go, or are found as torn at the next attempt.
            with contextlib.suppress(OSError):
                os.ftruncate(handle, self._size)
                os.fsync(handle)
            self._close()
            raise
        self._size += len(block)
        self._previous, self._sequence = previous, sequence

    def _open(self) -> None:
        """Continue the newest file after its last whole line, or begin the first file."""
        self._previous, self._sequence, self._number, self._size = ORIGIN, 0, 0, 0
        files = log_files(self._folder)
        if not files:
            self._create(1)
            return
        newest = files[-1]
        self._number = int(newest.stem.rsplit("-", 1)[1])
        torn = 0
        for path in reversed(files):
            kept, line = last_line(path)
            if path == newest:
                self._size = kept
                torn = path.stat().st_size - kept
            if line is not None:
                self._previous, self._sequence = line_hash(line), int(json.loads(line)["seq"])
                break
        aside = _keep_aside(newest, self._size) if torn else None
        self._handle = os.open(newest, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if aside is not None:
            os.ftruncate(self._handle, self._size)
            os.fsync(self._handle)
            _logger.warning("search log: a torn line of %d bytes was kept aside as %s", torn, aside.name)
            self._write([body_of({"kind": "torn", "file": aside.name, "bytes": torn})])

    def _create(self, number: int) -> None:
        path = self._folder / f"searches-{number:08d}.jsonl"
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._number, self._size = number, 0
        sync_folder(self._folder)

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def body_of(entry: Entry) -> Body:
    """A line's body of an entry that is not empty. Raises `TypeError` or `ValueError` for what is no JSON."""
    return Body(json.dumps(entry, separators=(",", ":"), allow_nan=False)[1:-1])


def last_line(path: Path) -> tuple[int, bytes | None]:
    """Bytes up to the end of the last whole line, and that line; (0, None) without one.

    A crash can leave half a line, or blocks of zeros where a line was to be: neither parses.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = size
        tail = b""
        while start > 0:
            step = min(start, 65_536)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
            end = tail.rfind(b"\n")
            while end >= 0:
                begin = tail.rfind(b"\n", 0, end)
                if begin < 0 and start > 0:
                    break  # the line begins before what was read
                line = tail[begin + 1 : end]
                if is_entry(line):
                    return start + end + 1, line
                end = begin
    return 0, None


def is_entry(line: bytes) -> bool:
    """Whether the line has the form of an entry of the log."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(entry, dict) and isinstance(entry.get("seq"), int) and isinstance(entry.get("prev"), str)
    )


def sync_folder(folder: Path) -> None:
    """Make the folder's list of names durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _keep_aside(path: Path, kept: int) -> Path:
    with path.open("rb") as file:
        file.seek(kept)
        torn = file.read()
    target = path.with_name(f"torn-{path.stem}-{kept}.bin")
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(handle, torn)
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_folder(path.parent)
    return target


def _write_all(handle: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _refusal(error: OSError) -> StoreUnavailable:
    store_failed("search log", type(error).__name__)
    return StoreUnavailable(
        f"the search log cannot be written ({error.strerror}); without it no search is answered: free "
        "space or mend the permissions of the data folder",
        store="search log",
    )

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
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from homeward.clock import Clock, SystemClock
from homeward.errors import StoreUnavailable

MIB = 1024 * 1024
ORIGIN = "0" * 64  # what the first line of all carries as its predecessor's hash
PATTERN = "searches-????????.jsonl"

_BATCH_MAX = 256
_logger = logging.getLogger(__name__)

Entry = Mapping[str, Any]


def line_hash(line: bytes) -> str:
    """SHA-256 of a line without its newline, as the next line carries it."""
    return hashlib.sha256(line).hexdigest()


def log_files(folder: Path) -> list[Path]:
    """The files of the log, oldest first."""
    return sorted(folder.glob(PATTERN))


@dataclass(frozen=True, slots=True)
class _Job:
    body: str  # the entry's JSON without its braces
    done: Future[None]


class SearchLog:
    """Appends to the log in `folder`. Open while the context lasts; one process at a time.

    Files are readable by their owner alone, are rotated at `file_bytes`, and are never rewritten: a
    torn last line, left by a crash, is moved to a file of its own, and the chain says so.
    """

    def __init__(self, folder: Path, clock: Clock | None = None, *, file_bytes: int = 64 * MIB) -> None:
        self._folder = folder
        self._clock = clock or SystemClock()
        self._file_bytes = file_bytes
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = threading.Lock()
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
        self._thread = threading.Thread(target=self._run, name="search-log", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what was submitted, then close."""
        with self._closing:
            thread, self._thread = self._thread, None
            self._jobs.put(None)
        if thread is not None:
            thread.join()
        self._close()

    def submit(self, entry: Entry) -> Future[None]:
        """Queue one line; the future is done when it is on disk.

        The entry is not empty; the log adds `seq`, `time` and `prev`. The future raises
        `StoreUnavailable` when the line could not be written: the search must then not be answered.
        """
        job = _Job(_body(entry), Future())
        job.done.set_running_or_notify_cancel()  # a caller that leaves cannot take its line back
        with self._closing:
            if self._thread is None:
                raise StoreUnavailable("the search log is closed", store="search log")
            self._jobs.put(job)
        return job.done

    def _run(self) -> None:
        closing = False
        while not closing:
            job = self._jobs.get()
            batch: list[_Job] = []
            while True:
                if job is None:
                    closing = True
                    break
                batch.append(job)
                if len(batch) >= _BATCH_MAX:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._commit(batch)

    def _commit(self, batch: list[_Job]) -> None:
        failure: StoreUnavailable | None = None
        try:
            self._write([job.body for job in batch])
        except OSError as error:
            _logger.error("search log: %s", error.strerror)  # noqa: TRY400 - the trace says nothing more
            failure = _refusal(error)
        except Exception:  # what stops this thread would stop all searches
            _logger.exception("search log")
            failure = StoreUnavailable("the search log could not be written", store="search log")
        for job in batch:
            if failure is None:
                job.done.set_result(None)
            else:
                job.done.set_exception(failure)

    def _write(self, bodies: list[str]) -> None:
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
            self._write([_body({"kind": "torn", "file": aside.name, "bytes": torn})])

    def _create(self, number: int) -> None:
        path = self._folder / f"searches-{number:08d}.jsonl"
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._number, self._size = number, 0
        sync_folder(self._folder)

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _body(entry: Entry) -> str:
    return json.dumps(entry, separators=(",", ":"), allow_nan=False)[1:-1]


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
    return StoreUnavailable(
        f"the search log cannot be written ({error.strerror}); without it no search is answered: free "
        "space or mend the permissions of the data folder",
        store="search log",
    )

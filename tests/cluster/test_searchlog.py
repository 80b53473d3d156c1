"""The search log: on disk before the reply, chained, and whole again after any crash."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.searchlog import SearchLog, body_of, log_files
from cluster.searchlog_verify import verify
from homeward.errors import StoreUnavailable


def entries(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in log_files(folder) for line in path.read_bytes().splitlines()]


def append(folder: Path, count: int, file_bytes: int = 1_000_000) -> None:
    with SearchLog(folder, file_bytes=file_bytes) as log:
        for number in range(count):
            log.append([body_of({"kind": "search", "number": number})])


def test_a_line_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    with SearchLog(tmp_path / "log") as log:
        for number in range(20):
            log.append([body_of({"number": number})])
            assert entries(tmp_path / "log")[-1]["number"] == number


async def test_callers_that_leave_stop_no_later_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, may_sync = os.fdatasync, threading.Event()

    def sync(handle: int) -> None:
        may_sync.wait(10)
        real(handle)

    monkeypatch.setattr(os, "fdatasync", sync)
    with SearchLog(tmp_path / "log") as log:
        leaving = [
            asyncio.ensure_future(asyncio.to_thread(log.append, [body_of({"number": n})])) for n in range(3)
        ]
        await asyncio.sleep(0.05)
        for task in leaving:
            task.cancel()
        may_sync.set()
        await asyncio.wait_for(asyncio.to_thread(log.append, [body_of({"number": 3})]), 10)
    assert [entry["number"] for entry in entries(tmp_path / "log")] == [0, 1, 2, 3]


def test_a_line_that_cannot_be_written_for_any_reason_stops_no_later_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise ValueError(handle)

    with SearchLog(tmp_path / "log") as log:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", fail)
            with pytest.raises(StoreUnavailable):
                log.append([body_of({"number": 0})])
        log.append([body_of({"number": 1})])
    assert verify(tmp_path / "log").lines == 1


def test_it_is_synced_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real = os.fdatasync

    def sync(handle: int) -> None:
        real(handle)
        events.append("sync")

    monkeypatch.setattr(os, "fdatasync", sync)
    with SearchLog(tmp_path / "log") as log:
        log.append([body_of({"a": 1})])
        events.append("done")
    assert events == ["sync", "done"]


def test_the_chain_holds_over_files_and_openings(tmp_path: Path) -> None:
    for _ in range(3):
        append(tmp_path, 30, file_bytes=2000)
    report = verify(tmp_path)
    assert report.complete
    assert report.lines == 90
    assert report.files > 3
    assert [entry["seq"] for entry in entries(tmp_path)] == list(range(1, 91))


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    append(tmp_path / "log", 1)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700
    for path in (tmp_path / "log").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_concurrent_lines_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = []
    real = os.fdatasync

    def slow(handle: int) -> None:
        syncs.append(1)
        time.sleep(0.02)
        real(handle)

    monkeypatch.setattr(os, "fdatasync", slow)
    with SearchLog(tmp_path) as log, ThreadPoolExecutor(50) as pool:
        wait([pool.submit(log.append, [body_of({"number": number})]) for number in range(200)], 30)
    assert len(syncs) < 20
    assert verify(tmp_path).lines == 200


@pytest.mark.parametrize("change", ["edit", "drop", "swap", "insert"])
def test_a_changed_line_shows(tmp_path: Path, change: str) -> None:
    append(tmp_path, 10)
    path = log_files(tmp_path)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    if change == "edit":
        lines[4] = lines[4].replace(b'"number":4', b'"number":5')
    elif change == "drop":
        del lines[4]
    elif change == "swap":
        lines[4], lines[5] = lines[5], lines[4]
    else:
        lines.insert(4, lines[4])
    path.write_bytes(b"".join(lines))
    report = verify(tmp_path)
    assert report.problems
    assert report.remedy
    assert "broken" in report.finding


def test_removed_old_files_are_said_and_are_no_damage(tmp_path: Path) -> None:
    append(tmp_path, 30, file_bytes=1000)
    log_files(tmp_path)[0].unlink()
    report = verify(tmp_path)
    assert not report.problems
    assert not report.complete


@pytest.mark.parametrize("torn", [b'{"seq":11,"ti', b"\0" * 300, b"\0" * 300 + b"\n", b"\xff\n{}", b"\n\n"])
def test_a_torn_line_is_kept_aside_and_the_chain_goes_on(tmp_path: Path, torn: bytes) -> None:
    append(tmp_path, 10)
    path = log_files(tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    append(tmp_path, 3)
    report = verify(tmp_path)
    assert report.complete
    assert report.lines == 14  # one says that a line was torn
    assert [(tmp_path / name).read_bytes() for name in report.torn] == [torn]
    assert path.read_bytes().startswith(whole)


def test_a_torn_first_line_leaves_an_empty_beginning(tmp_path: Path) -> None:
    append(tmp_path, 3, file_bytes=1)  # a file for each line
    newest = log_files(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:20])
    append(tmp_path, 2)
    report = verify(tmp_path)
    assert report.complete
    assert [entry["seq"] for entry in entries(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_full_disk_refuses_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    full = False

    def write(handle: int, data: bytes) -> int:
        if not full:
            return real(handle, data)
        if len(data) > 40:
            return real(handle, bytes(data)[:40])
        raise OSError(errno.ENOSPC, "No space left on device")

    with SearchLog(tmp_path) as log:
        log.append([body_of({"a": 1})])
        monkeypatch.setattr(os, "write", write)
        full = True
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as refused:
                log.append([body_of({"a": "x" * 60})])
            assert refused.value.details["store"] == "search log"
            full = True
        full = False
        log.append([body_of({"a": 2})])
    report = verify(tmp_path)
    assert report.complete
    assert [entry.get("a") for entry in entries(tmp_path)] == [1, 2]


def test_a_failed_sync_refuses_and_the_next_line_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdatasync
    with SearchLog(tmp_path) as log:
        log.append([body_of({"a": 1})])

        def fail(handle: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(StoreUnavailable):
            log.append([body_of({"a": 2})])
        monkeypatch.setattr(os, "fdatasync", real)
        log.append([body_of({"a": 3})])
    assert verify(tmp_path).complete
    assert [entry["a"] for entry in entries(tmp_path)] == [1, 3]


def test_a_folder_that_cannot_be_used_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable), SearchLog(tmp_path / "file" / "log"):
        pass


def test_a_closed_log_refuses(tmp_path: Path) -> None:
    with SearchLog(tmp_path) as log:
        pass
    with pytest.raises(StoreUnavailable):
        log.append([body_of({"a": 1})])


def test_what_is_no_json_costs_its_caller_alone(tmp_path: Path) -> None:
    with SearchLog(tmp_path) as log:
        with pytest.raises(TypeError):
            log.append([body_of({"a": object()})])
        with pytest.raises(ValueError):
            log.append([body_of({"a": float("nan")})])
        log.append([body_of({"a": 1})])
    assert verify(tmp_path).lines == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_no_text_of_a_caller_can_end_or_fake_a_line(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    given_texts = [*texts, '"}\n{"seq":1}\n', "\x85\u2028\x1b[2J"]
    with SearchLog(folder) as log:
        for text in given_texts:
            log.append([body_of({"case": text})])
    raw = b"".join(path.read_bytes() for path in log_files(folder))
    assert raw.count(b"\n") == len(given_texts)
    assert all(byte == 10 or 32 <= byte < 127 for byte in raw)
    assert [entry["case"] for entry in entries(folder)] == given_texts


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from cluster.searchlog import SearchLog, body_of

def one(number):
    log.append([body_of({"number": number, "pad": "x" * (number % 700)})])
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()

with SearchLog(Path(sys.argv[1]), file_bytes=20_000) as log, ThreadPoolExecutor(8) as pool:
    start = int(sys.argv[2])
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    list(pool.map(one, range(start, start + 1_000_000)))
"""


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    randomness = random.Random(5)
    acknowledged: set[int] = set()
    for attempt in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(attempt * 1_000_000)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(randomness.uniform(0.05, 0.4))
        writer.send_signal(signal.SIGKILL)
        out, _ = writer.communicate(timeout=10)
        acknowledged |= {int(line) for line in out.splitlines() if line.isdigit()}
    with SearchLog(tmp_path) as log:
        log.append([body_of({"number": -1})])
    report = verify(tmp_path)
    assert report.complete
    kept = {entry.get("number") for entry in entries(tmp_path)}
    assert acknowledged <= kept
    assert len(acknowledged) > 50

"""Opening beside other work: nothing is opened twice, left open, or failed for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.load.ahead import Ahead


def test_is_opened_once_for_many_threads_and_closed_at_the_end() -> None:
    said: list[str] = []
    go = threading.Event()

    @contextmanager
    def slow() -> Iterator[object]:
        assert go.wait(30)
        said.append("open")
        yield object()
        said.append("closed")

    with Ahead(slow) as ahead:
        ahead.begin()
        got: list[object] = []
        threads = [threading.Thread(target=lambda: got.append(ahead.get())) for _ in range(4)]
        for thread in threads:
            thread.start()
        go.set()
        for thread in threads:
            thread.join()
        assert len(set(map(id, got))) == 1
        assert said == ["open"]
    assert said == ["open", "closed"]


def test_what_failed_is_opened_again_for_the_next_who_asks() -> None:
    tries = 0

    @contextmanager
    def failing_once() -> Iterator[int]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("gone")
        yield tries

    with Ahead(failing_once) as ahead:
        with pytest.raises(OSError, match="gone"):
            ahead.get()
        assert ahead.get() == 2


def test_nobody_need_ask_for_it_to_be_closed() -> None:
    closed = threading.Event()

    @contextmanager
    def quick() -> Iterator[None]:
        yield
        closed.set()

    with Ahead(quick) as ahead:
        ahead.begin()
    assert closed.is_set()


def test_what_was_never_begun_is_not_opened() -> None:
    opened = threading.Event()

    @contextmanager
    def noted() -> Iterator[None]:
        opened.set()
        yield

    with Ahead(noted):
        pass
    assert not opened.is_set()

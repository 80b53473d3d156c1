from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from homeward.config import WorkerSettings
from homeward.errors import PhotoReason, PhotoRejected, WorkerUnavailable
from homeward.ids import photo_sha256
from tests.workers.photo_bytes import LIMITS, blocks, encode
from workers.decode import DecodedPhoto, DecodeLimits, decode
from workers.decode_wire import SharedSlots
from workers.sandbox import DecodePool

HOSTILE = "tests.workers.hostile:decode"
SMALL = DecodeLimits(max_bytes=1 << 20, max_pixels=1 << 20)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    """The real decoder."""
    with DecodePool(LIMITS, processes=2, timeout_s=30) as opened:
        yield opened


@pytest.fixture(scope="module")
def hostile() -> Iterator[DecodePool]:
    """A decoder that does what its photos say."""
    with DecodePool(SMALL, processes=2, timeout_s=1.0, memory_bytes=256 << 20, decoder=HOSTILE) as opened:
        yield opened


def grey(number: int) -> bytes:
    return f"grey {number}".encode()


def said(answers: list[DecodedPhoto | PhotoRejected]) -> list[int | PhotoReason]:
    """Grey values and reasons."""
    return [
        answer.reason if isinstance(answer, PhotoRejected) else int(answer.pixels[0, 0, 0])
        for answer in answers
    ]


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_answers_equal_decoding_here_and_keep_their_order(pool: DecodePool) -> None:
    photos = [encode(blocks(96, 64, seed), kind) for seed in range(12) for kind in ("JPEG", "PNG", "WEBP")]
    answers = pool.decode_many(photos)
    for photo, answer in zip(photos, answers, strict=True):
        expected = decode(photo, LIMITS)
        assert isinstance(answer, DecodedPhoto)
        np.testing.assert_array_equal(answer.pixels, expected.pixels)
        assert (answer.width, answer.height) == (expected.width, expected.height)
        assert (answer.media_type, answer.sha256) == (expected.media_type, photo_sha256(photo))
        assert answer.pixels.flags.writeable
        assert answer.pixels.flags.owndata


def test_refusals_come_back_typed_and_in_place(pool: DecodePool) -> None:
    good = encode(blocks(), "JPEG")
    answers = pool.decode_many([good, b"", good[:-50], b"no photo", good, b"%!PS-Adobe"])
    reasons = [answer.reason if isinstance(answer, PhotoRejected) else None for answer in answers]
    assert reasons == [
        None,
        PhotoReason.EMPTY,
        PhotoReason.TRUNCATED,
        PhotoReason.FORMAT_UNKNOWN,
        None,
        PhotoReason.FORMAT_REFUSED,
    ]
    refused = answers[5]
    assert isinstance(refused, PhotoRejected)
    assert refused.details == {"format": "EPS"}


def test_no_photos_are_no_work(hostile: DecodePool) -> None:
    assert hostile.decode_many([]) == []


def test_too_many_bytes_never_reach_a_child(hostile: DecodePool) -> None:
    assert said(hostile.decode_many([b"die " * (1 << 20), grey(3)])) == [PhotoReason.TOO_MANY_BYTES, 3]


@pytest.mark.parametrize("word", ["die", "crash", "exit"])
def test_a_photo_that_kills_its_decoder_costs_itself_alone(hostile: DecodePool, word: str) -> None:
    photos = [grey(number) for number in range(30)]
    photos[7] = photos[8] = word.encode()
    expected: list[int | PhotoReason] = list(range(30))
    expected[7] = expected[8] = PhotoReason.DECODER_DIED
    assert said(hostile.decode_many(photos)) == expected


@pytest.mark.parametrize("word", ["hang", "spin"])
def test_a_photo_that_hangs_costs_itself_alone(hostile: DecodePool, word: str) -> None:
    photos = [grey(1), word.encode(), grey(2), grey(3), grey(4)]
    assert said(hostile.decode_many(photos)) == [1, PhotoReason.DECODE_TIMEOUT, 2, 3, 4]


def test_a_photo_that_wants_too_much_memory_is_refused(hostile: DecodePool) -> None:
    photos = [b"grow 100", b"grow 400", grey(5)]
    assert said(hostile.decode_many(photos)) == [1, PhotoReason.DECODE_MEMORY, 5]


def test_pixels_beyond_the_limits_do_not_come_through(hostile: DecodePool) -> None:
    assert said(hostile.decode_many([b"oversize", grey(6)])) == [PhotoReason.DECODER_DIED, 6]


def test_children_write_no_files_and_see_no_secrets(
    hostile: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(hostile.decode_many([b"write", grey(9)])) == [PhotoReason.DECODER_DIED, 9]
    monkeypatch.setenv("HOMEWARD_SECRET", "x")
    with DecodePool(SMALL, processes=1, decoder=HOSTILE) as opened:
        assert said(opened.decode_many([b"environment"])) == [0]


def test_what_codecs_print_stays_in_the_child(hostile: DecodePool, capfd: pytest.CaptureFixture[str]) -> None:
    assert said(hostile.decode_many([b"chatter 4"])) == [4]
    assert capfd.readouterr() == ("", "")


def test_an_idle_child_that_was_killed_costs_nothing(hostile: DecodePool) -> None:
    hostile.decode_many([grey(number) for number in range(20)])
    for pid in hostile.child_pids:
        os.kill(pid, signal.SIGKILL)
    assert said(hostile.decode_many([grey(number) for number in range(20)])) == list(range(20))


def test_a_child_killed_at_work_costs_one_photo(hostile: DecodePool) -> None:
    photos = [f"sleep 0.1{number:02}".encode() for number in range(20)]
    with ThreadPoolExecutor(1) as executor:
        answers = executor.submit(hostile.decode_many, photos)
        time.sleep(0.35)
        os.kill(hostile.child_pids[0], signal.SIGKILL)
        reasons = said(answers.result())
    assert [reason for reason in reasons if reason != 0] in ([], [PhotoReason.DECODER_DIED])


def test_children_killed_at_random_cost_at_most_a_photo_each(hostile: DecodePool) -> None:
    chance = random.Random(5)
    kills = 0
    photos = [f"sleep 0.00{number % 10}".encode() for number in range(600)]
    with ThreadPoolExecutor(1) as executor:
        answers = executor.submit(hostile.decode_many, photos)
        while not answers.done():
            time.sleep(chance.uniform(0.02, 0.2))
            if pids := hostile.child_pids:
                try:
                    os.kill(chance.choice(pids), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass
        reasons = said(answers.result())
    assert len(reasons) == 600
    assert set(reasons) <= {0, PhotoReason.DECODER_DIED}
    assert reasons.count(PhotoReason.DECODER_DIED) <= kills


def test_a_stopped_child_is_replaced(hostile: DecodePool) -> None:
    hostile.decode_many([grey(number) for number in range(20)])
    stopped = hostile.child_pids
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    assert said(hostile.decode_many([grey(number) for number in range(6)])) == list(range(6))
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in stopped))


def test_a_killed_template_is_replaced(hostile: DecodePool) -> None:
    hostile.decode_many([grey(1)])
    template = psutil.Process(hostile.child_pids[0]).ppid()
    os.kill(template, signal.SIGKILL)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in hostile.child_pids))
    assert said(hostile.decode_many([grey(number) for number in range(20)])) == list(range(20))


def test_concurrent_calls_get_their_own_answers(hostile: DecodePool) -> None:
    def call(caller: int) -> bool:
        expected = [(caller * 7 + number) % 256 for number in range(60)]
        return said(hostile.decode_many([grey(number) for number in expected])) == list(expected)

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(call, range(24)))


def test_a_lone_photo_does_not_wait_for_a_whole_load(hostile: DecodePool) -> None:
    load = [b"sleep 0.02"] * 150
    done: list[str] = []

    def call() -> None:
        hostile.decode_many(load)
        done.append("load")

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.1)
    hostile.decode_many([grey(1)])
    done.append("lone")
    thread.join()
    assert done == ["lone", "load"]


def test_refusals_keep_their_details(hostile: DecodePool) -> None:
    answer = hostile.decode_many([b"refuse 42"])[0]
    assert isinstance(answer, PhotoRejected)
    assert (answer.reason, answer.message, answer.details) == (
        PhotoReason.CORRUPT,
        "as asked",
        {"detail": "42"},
    )


def test_large_photos_leave_no_memory_behind() -> None:
    limits = DecodeLimits(LIMITS.max_bytes, LIMITS.max_pixels)
    photo = encode(Image.new("RGB", (6000, 4000), (1, 2, 3)), "PNG")
    me = psutil.Process()
    with DecodePool(limits, processes=2) as opened:
        opened.decode_many([photo])
        before = me.memory_info().rss
        for _ in range(6):
            answer = opened.decode_many([photo])[0]
            assert isinstance(answer, DecodedPhoto)
            assert (answer.pixels[-1, -1] == (1, 2, 3)).all()
            del answer
        assert me.memory_info().rss - before < 64 << 20


def test_an_idle_pool_keeps_no_photo_alive(hostile: DecodePool) -> None:
    answers = hostile.decode_many([grey(1), b"die", grey(2)])
    assert isinstance(answers[0], DecodedPhoto)
    pixels = weakref.ref(answers[0].pixels)
    del answers
    wait_until(lambda: pixels() is None)


def test_a_failure_in_this_process_answers_the_call(
    hostile: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(SharedSlots, "take_output", no_memory)
        with pytest.raises(WorkerUnavailable):
            hostile.decode_many([grey(1)] * 5)
    assert said(hostile.decode_many([grey(2)])) == [2]


def test_descriptors_and_children_do_not_pile_up(hostile: DecodePool) -> None:
    me = psutil.Process()
    hostile.decode_many([b"die"] * 4)
    before = me.num_fds()
    hostile.decode_many([b"die"] * 20)
    hostile.decode_many([grey(1)] * 4)
    assert me.num_fds() <= before + 6
    assert len(hostile.child_pids) <= 2


def test_closing_ends_every_process() -> None:
    with DecodePool(SMALL, processes=2, decoder=HOSTILE) as opened:
        opened.decode_many([grey(number) for number in range(20)])
        pids = [*opened.child_pids, psutil.Process(opened.child_pids[0]).ppid()]
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    with pytest.raises(WorkerUnavailable):
        opened.decode_many([grey(1)])


def test_closing_answers_calls_that_wait() -> None:
    opened = DecodePool(SMALL, processes=1, decoder=HOSTILE)
    with ThreadPoolExecutor(1) as executor:
        answers = executor.submit(opened.decode_many, [b"sleep 0.05"] * 400)
        wait_until(lambda: bool(opened.child_pids))
        opened.close()
        with pytest.raises(WorkerUnavailable):
            answers.result(timeout=20)


def test_a_decoder_that_does_not_import_is_unavailable() -> None:
    opened = DecodePool(SMALL, processes=2, decoder="tests.workers.nowhere:decode")
    with opened, pytest.raises(WorkerUnavailable, match="nowhere"):
        opened.decode_many([grey(1)] * 5)


PARENT = """
import os, sys, threading, time
from workers.decode import DecodeLimits
from workers.decode_wire import SharedSlots
from workers.sandbox import DecodePool
pool = DecodePool(DecodeLimits(1 << 20, 1 << 20), processes=2, timeout_s=600, decoder=%r)
pool.decode_many([b"grey 1"] * 8)
threading.Thread(target=pool.decode_many, args=([b"hang", b"spin"],), daemon=True).start()
time.sleep(0.5)
print(*pool.child_pids, flush=True)
time.sleep(600)
"""


def test_a_killed_parent_leaves_no_process_behind() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT % HOSTILE], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert children
        pids = [*children, psutil.Process(children[0]).ppid()]
        parent.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_the_settings_reach_the_pool() -> None:
    settings = WorkerSettings(decode_processes=1, max_photo_pixels=10_000)
    with DecodePool.from_settings(settings) as opened:
        answers = opened.decode_many([encode(blocks(), "PNG"), encode(blocks(160, 160), "PNG")])
        assert len(opened.child_pids) == 1
    assert isinstance(answers[0], DecodedPhoto)
    assert isinstance(answers[1], PhotoRejected)
    assert answers[1].reason is PhotoReason.TOO_MANY_PIXELS

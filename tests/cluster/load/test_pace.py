"""How fast a load goes, by a clock that the test moves, and the words for it."""

from __future__ import annotations

import pytest

from cluster.load.pace import Pace, RateWindow, duration, per_second, percent, plain, reasons
from tests.cluster.load.watched import Clock, progress


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    clock = Clock()
    window = RateWindow(clock)
    photos = 0
    for rate in (10, 500, 100):
        for _ in range(60):
            clock.now += 0.5
            photos += rate // 2
            window.add(photos, 2 * photos)
        assert window.photos_per_s == pytest.approx(rate, rel=0.05)
        assert window.faces_per_s == pytest.approx(2 * rate, rel=0.05)
    assert window.seconds_left(1000) == pytest.approx(10, rel=0.05)


def test_there_is_no_rate_and_no_time_left_before_there_can_be_one() -> None:
    clock = Clock()
    window = RateWindow(clock)
    assert window.photos_per_s is None
    for photos in range(5):  # all at the same moment
        window.add(photos, photos)
        assert (window.photos_per_s, window.faces_per_s, window.seconds_left(10)) == (None, None, None)
    clock.now += 0.5
    window.add(100, 100)
    assert window.photos_per_s is None
    clock.now += 1.5
    window.add(100, 100)
    assert window.photos_per_s == pytest.approx(50)


def test_standing_still_is_a_rate_of_nothing_and_no_time_left() -> None:
    clock = Clock()
    window = RateWindow(clock)
    window.add(0, 0)
    for _ in range(120):
        clock.now += 0.5
        window.add(700, 600)
    assert (window.photos_per_s, window.faces_per_s, window.seconds_left(10)) == (0, 0, None)
    clock.now += 3600  # nobody asked for an hour
    window.add(700 + 3600, 600)
    assert window.photos_per_s == pytest.approx(1.0, rel=0.02)


def test_lost_counts_begin_a_new_rate_and_never_a_negative_one() -> None:
    clock = Clock()
    window = RateWindow(clock)
    for photos in (0, 100, 200, 50, 60, 70):
        clock.now += 1
        window.add(photos, photos)
        assert (window.photos_per_s or 0) >= 0
    assert window.photos_per_s == pytest.approx(10)


def test_a_window_keeps_few_samples_however_often_it_is_fed() -> None:
    clock = Clock()
    window = RateWindow(clock)
    for photos in range(60_000):
        clock.now += 0.001
        window.add(photos, photos)
    assert len(window._samples) < 200
    assert window.photos_per_s == pytest.approx(1000, rel=0.02)


def test_parts_that_commit_in_steps_move_evenly_by_what_is_written() -> None:
    clock = Clock()
    pace = Pace(clock)
    for second in range(1, 61):
        clock.now += 1
        committed = 100 * second // 2000 * 2000
        seen = pace.see(progress(committed + 500, 10_500, before=500, written=100 * second))
    assert seen.photos_per_s == pytest.approx(100, rel=0.01)
    assert seen.seconds_left == pytest.approx(40, rel=0.01)


def test_all_accounted_for_leaves_no_time_and_all_written_leaves_none_known() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.see(progress(10, 10)).seconds_left == 0
    assert pace.see(progress(0, 0)).seconds_left == 0
    clock.now += 10
    assert pace.see(progress(10, 20, written=20)).seconds_left is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (58.4, "58 s"),
        (59.6, "1 min"),
        (598, "9 min 58 s"),
        (600, "10 min"),
        (3599.7, "1 h"),
        (11_520, "3 h 12 min"),
        (86_399, "23 h 59 min"),
        (86_400 * 2 + 3 * 3600 + 59, "2 d 3 h"),
        (86_400 * 1500, "1,500 d"),
    ],
)
def test_durations_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_rates_shares_and_reasons_in_words() -> None:
    assert [per_second(rate) for rate in (1432.4, 143, 0.42, 0)] == ["1,432/s", "143/s", "0.4/s", "0/s"]
    assert percent(progress(97_999)) == "99 %"
    assert percent(progress(98_000)) == "100 %"
    assert percent(progress(0, 0)) == ""
    many = {f"R{number}": number for number in range(10)}
    assert reasons(many) == "R9 9, R8 8, R7 7, R6 6, R5 5, R4 4 and 3 more"
    assert reasons({"B": 1000, "A": 1000}) == "A 1,000, B 1,000"
    assert reasons({}) == ""


def test_nothing_of_a_name_reaches_the_terminal_but_what_can_be_seen() -> None:
    assert plain("åland 中 [red]") == "åland 中 [red]"
    assert plain("a\x1b[2J\n\x9bb\u202e\ud800") == r"a\x1b[2J\n\x9bb\u202e\ud800"

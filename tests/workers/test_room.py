"""Places go to who has the lowest turn, and to no more at a time than there are."""

from __future__ import annotations

import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.room import Room


def _waiting(room: Room, count: int) -> None:
    while len(room._waiting) < count:
        time.sleep(0.001)


@settings(max_examples=25, deadline=None)
@given(turns=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_who_waits_is_served_by_turn_and_then_by_who_asked_first(turns: list[int]) -> None:
    room = Room(1)
    room.acquire()
    served: list[tuple[int, int]] = []

    def wait(number: int, turn: int) -> None:
        room.acquire(turn)
        served.append((turn, number))
        room.release()

    threads = [threading.Thread(target=wait, args=one) for one in enumerate(turns)]
    for number, thread in enumerate(threads):
        thread.start()
        _waiting(room, number + 1)
    room.release()
    for thread in threads:
        thread.join()
    assert served == sorted((turn, number) for number, turn in enumerate(turns))


def test_no_more_than_there_are_places_are_inside() -> None:
    room = Room(3)
    inside, most = 0, 0
    lock = threading.Lock()

    def enter(turn: int) -> None:
        nonlocal inside, most
        for _ in range(50):
            room.acquire(turn)
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0)
            with lock:
                inside -= 1
            room.release()

    threads = [threading.Thread(target=enter, args=(turn,)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < most <= 3
    for _ in range(3):
        room.acquire()  # all places are free again

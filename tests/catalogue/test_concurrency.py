"""Several writers at once, and one that is killed: revs in commit order, every commit whole."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from catalogue.coding import LOAD
from tests.catalogue.builders import check_consistent, done, recalled, request, rid, write
from tests.catalogue.conftest import Place


def test_revs_rise_in_commit_order_under_concurrent_writers(place: Place) -> None:
    """A follower that has seen rev n has seen every rev below it."""
    writers, batches = 4, 12
    openers = [place.open() for _ in range(3)]
    stop = threading.Event()
    gaps: list[tuple[int, int]] = []

    def follow() -> int:
        seen = 0
        while True:
            last = stop.is_set()
            for change in openers[2].changes_since(seen):
                if change.rev != seen + 1:
                    gaps.append((seen, change.rev))
                seen = change.rev
            if last:
                return seen

    def work(writer: int) -> list[int]:
        revs = []
        for batch in range(batches):
            made = [write(f"{writer}-{batch}-{at}", ["p"]) for at in range(1 + batch % 3)]
            revs += [done(result).rev for result in openers[writer % 2].apply(made)]
        return revs

    with ThreadPoolExecutor(writers + 1) as pool:
        follower = pool.submit(follow)
        revs = [rev for mine in pool.map(work, range(writers)) for rev in mine]
        stop.set()
        assert follower.result() == len(revs)
    assert gaps == []
    assert sorted(revs) == list(range(1, len(revs) + 1))
    check_consistent(openers[0])
    for opened in openers:
        opened.close()


def test_one_request_from_many_threads_is_done_once(place: Place) -> None:
    openers = [place.open(), place.open()]
    made = write("r", ["p"], request=request("q"))
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda at: done(openers[at % 2].apply([made])[0]), range(12)))
    assert sum(not result.replayed for result in results) == 1
    assert {result.response for result in results} == {b"rev 1"}
    assert openers[0].rev() == 1
    for opened in openers:
        opened.close()


def test_codes_are_the_same_for_all_who_ask_at_once(place: Place) -> None:
    openers = [place.open(), place.open()]
    asked = [[f"load {at % 7}", f"load {(at + 3) % 7}"] for at in range(24)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda at: openers[at % 2].codes(LOAD, asked[at]), range(24)))
    merged: dict[str, int] = {}
    for codes in found:
        for value, code in codes.items():
            assert merged.setdefault(value, code) == code
    assert sorted(merged.values()) == list(range(1, 8))
    for opened in openers:
        opened.close()


_WRITER = """
import sys
from pathlib import Path
from pydantic import SecretStr
from catalogue.open import open_catalogue
from catalogue.types import Deletion
from homeward.config import CatalogueSettings
from tests.catalogue.builders import done, request, rid, write
uri, password, folder, start = sys.argv[1:]
catalogue = open_catalogue(CatalogueSettings(uri=uri, password=SecretStr(password)), Path(folder))
batch = int(start)
while True:
    names = [f"{batch}-{at}" for at in range(6)]
    made = [write(name, {"p": 2, f"{batch}": 1}, request=request(name)) for name in names]
    for result in catalogue.apply(made):
        done(result)
    catalogue.delete(Deletion(rid(f"{batch}-0"), "", ""))
    print(batch, flush=True)
    batch += 1
"""


def test_a_killed_writer_leaves_a_consistent_catalogue(place: Place) -> None:
    password = place.settings.password
    arguments = [
        place.settings.uri,
        "" if password is None else password.get_secret_value(),
        str(place.folder),
    ]
    batch = 0
    for turn in range(2):
        command = [sys.executable, "-c", _WRITER, *arguments, str(batch)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline()]
            time.sleep(0.05 + 0.04 * turn)
            writer.kill()
            lines += writer.stdout.read().splitlines()
        acknowledged = [int(line) for line in lines if line.strip()]
        assert acknowledged
        catalogue = place.open()
        for number in acknowledged:
            assert len(catalogue.get_many([rid(f"{number}-{at}") for at in range(6)])) == 5
            assert recalled(catalogue, f"{number}-1") is not None
        # The batch that was cut off is there whole or not at all.
        cut = acknowledged[-1] + 1
        assert len(catalogue.get_many([rid(f"{cut}-{at}") for at in range(6)])) in (0, 5, 6)
        check_consistent(catalogue)
        catalogue.close()
        batch = cut + 1

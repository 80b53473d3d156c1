"""Drives one load through kills for `benchmarks.kills`: kills, resumes, and waits until it moves again."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.kills_archive import Archive
from benchmarks.kills_world import LoadDriver, World, not_json
from benchmarks.reporting import say
from benchmarks.stores import Stores

NAME = "archive"
AGENCY = "agency"
KINDS = ("driver", "loader", "node", "milvus", "postgres", "s3")
_LOOK_S = 0.2
_LOADER_S = 60.0  # loaders that died come back within
_RESUMES_MAX = 20  # in a row without a part between them: then it is no use


class Stuck(Exception):
    """The load does not go on; the message says where it stands."""


@dataclass(frozen=True, slots=True)
class Moved:
    """How far a load is."""

    parts: int = 0
    photos: int = 0  # of committed records

    def beyond(self, other: Moved) -> bool:
        """Whether more is written."""
        return self.parts > other.parts or self.photos > other.photos


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9."""

    kind: str
    what: str
    at_s: float  # since the load began
    parts: int  # committed by then
    moved_s: float  # from the kill until more was written


@dataclass(slots=True)
class Killed:
    """One load and all that befell it."""

    kills: list[Kill] = field(default_factory=list)
    resumes: int = 0
    stops: Counter[str] = field(default_factory=Counter)  # why drivers ended by themselves
    seconds: float = 0.0
    not_json: int = 0  # lines of the drivers' standard output that are none


class Killing:
    """One load under a world's kills."""

    def __init__(self, world: World, archive: Archive, part_photos: int, stuck_s: float, seed: int) -> None:
        self._world = world
        self._archive = archive
        self._part_photos = part_photos
        self._stuck_s = stuck_s
        self._chance = random.Random(seed)
        self._log = world.folder / "killed.log"
        self._begun = time.monotonic()
        self._driver: LoadDriver
        self.seen = Killed()

    def run(self, kinds: Sequence[str], pause_s: float) -> Killed:
        """Start the load, kill in this order, each up to `pause_s` after the load moved, and see it through.

        Raises `Stuck` when it does not go on, and when it was done before the last kill."""
        self._driver = started(self._world, self._world.killed, self._archive, self._part_photos, self._log)
        try:
            mark = self._moved_beyond(Moved())
            for kind in kinds:
                self._wait(self._chance.uniform(0.0, pause_s))
                mark = self._kill(kind)
            while not self._done():
                mark = self._moved_beyond(mark, or_done=True)
        finally:
            self._driver.kill()
        self.seen.seconds = time.monotonic() - self._begun
        self.seen.not_json = not_json(self._log)
        return self.seen

    def _kill(self, kind: str) -> Moved:
        before, at = self._moved() or Moved(), time.monotonic()
        what = self._kill_one(kind)
        after = self._moved() or before
        now = self._moved_beyond(after)
        moved_s = time.monotonic() - at
        self.seen.kills.append(Kill(kind, what, round(at - self._begun, 1), before.parts, round(moved_s, 1)))
        say(f"{len(self.seen.kills)}: {what} at {before.parts} parts, moved after {moved_s:.1f} s")
        return now

    def _kill_one(self, kind: str) -> str:
        if kind == "driver":
            pid = self._driver.process.pid
            self._driver.kill()
            return f"driver {pid}"
        if kind in self._world.servers:
            return self._world.kill_server(kind)
        kill = {"loader": self._world.kill_loader, "node": self._world.kill_node}[kind]
        give_up = time.monotonic() + _LOADER_S
        while (what := kill(self._chance)) is None:
            if time.monotonic() > give_up:
                raise Stuck(f"there is no {kind} to kill")
            self._wait(_LOOK_S)
        return what

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._look_after()
            time.sleep(min(_LOOK_S, left))

    def _moved_beyond(self, mark: Moved, *, or_done: bool = False) -> Moved:
        """Wait until more is written. A load that is done meanwhile was too short."""
        give_up, resumes = time.monotonic() + self._stuck_s, self.seen.resumes
        while True:
            now = self._moved()
            if now is not None and now.beyond(mark):
                return now
            if self._done():
                if or_done:
                    return mark
                raise Stuck(f"the load was done after {len(self.seen.kills)} kills: give it more photos")
            self._look_after()
            if time.monotonic() > give_up or self.seen.resumes > resumes + _RESUMES_MAX:
                raise Stuck(f"nothing was written for long: {now}, the driver said\n{self._driver.said()}")
            time.sleep(_LOOK_S)

    def _look_after(self) -> None:
        """Resume the load when its driver has ended and it is not done."""
        if not self._driver.ended or self._done():
            return
        code = self._driver.process.returncode
        if code > 0:
            why = (self._driver.said().strip().splitlines() or [""])[-1]
            self.seen.stops[why[:200]] += 1
            say(f"the driver ended with {code}: {why}")
        self.seen.resumes += 1
        self._driver = LoadDriver(_command("resume"), self._world.environment(self._world.killed), self._log)

    def _done(self) -> bool:
        return self._driver.ended and _state(self._world.killed) == "done"

    def _moved(self) -> Moved | None:
        """None while the catalogue does not answer."""
        try:
            with self._world.killed.connect() as connection:
                parts = connection.execute("SELECT count(*) FROM load_parts").fetchone()
                photos = connection.execute("SELECT count(*) FROM record_photos").fetchone()
        except psycopg.Error:
            return None
        assert parts is not None
        assert photos is not None
        return Moved(int(parts[0]), int(photos[0]))


def started(world: World, stores: Stores, archive: Archive, part_photos: int, log: Path) -> LoadDriver:
    """Start the load over these stores."""
    environment = {
        **world.environment(stores),
        "HOMEWARD_LOADS__PART_PHOTOS": str(part_photos),
    }
    named = ("--manifest", str(archive.manifest), "--agency", AGENCY, "--gallery", "missing")
    return LoadDriver(_command("start", str(archive.tar), *named), environment, log)


def undisturbed(world: World, archive: Archive, part_photos: int) -> float:
    """Load the archive into the other stores without a kill; seconds. Raises `Stuck`."""
    begun = time.monotonic()
    driver = started(world, world.whole, archive, part_photos, world.folder / "whole.log")
    try:
        code = driver.process.wait()
    finally:
        driver.kill()
    if _state(world.whole) != "done":
        raise Stuck(f"the undisturbed load ended with {code}:\n{driver.said()}")
    return time.monotonic() - begun


def in_turn(count: int) -> list[str]:
    """The kinds of so many kills."""
    return [KINDS[number % len(KINDS)] for number in range(count)]


def _command(verb: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "cluster.cli.main", "--json", "load", verb, NAME, *more]


def _state(stores: Stores) -> str:
    """What the ledger says; empty while it does not answer."""
    try:
        with stores.connect() as connection:
            found = connection.execute("SELECT state FROM loads WHERE name = %s", (NAME,)).fetchone()
    except psycopg.Error:
        return ""
    return "" if found is None else str(found[0])

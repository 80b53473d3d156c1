"""`homeward load` as an operator runs it, in a process of its own, with its memory watched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.stores import Stores

_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
_SAMPLE_S = 2.0
_EMBEDDING = 100  # photos: from there on loaders are at work


@dataclass(frozen=True, slots=True)
class Sample:
    """Private memory at one moment."""

    photos: int  # accounted for by then
    private_bytes: int  # of the driver and all its children, Ray's shared memory included


@dataclass(frozen=True, slots=True)
class Run:
    """One whole command."""

    seconds: float  # from its start to its end
    photos: int
    final: dict[str, Any]  # its last line
    steady_photos_per_s: float  # without its start: between its first and its last committed part
    samples: tuple[Sample, ...]

    @property
    def photos_per_s(self) -> float:
        """Of the whole command."""
        return self.photos / self.seconds

    def peak(self, photos: int) -> int:
        """Most private memory until so many photos were accounted for, bytes."""
        return max(sample.private_bytes for sample in self.samples if sample.photos <= photos)


def own_stores(stores: Stores, name: str) -> Stores:
    """Another database, collection and bucket on the same servers, empty."""
    database = f"load_{name}"
    with stores.postgres.connect() as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
    photos = stores.photos.model_copy(update={"uri": f"{stores.photos.uri}/{name}"})
    return replace(
        stores,
        catalogue=stores.postgres.settings(database),
        gallery=stores.milvus.settings(f"load_{name}", timeout_s=300.0),
        photos=photos,
    )


def environment(stores: Stores, folder: Path, **more: str) -> dict[str, str]:
    """Of a Homeward process over these stores. What one has compiled the next reads, as where it is
    installed."""
    own = {"HOMEWARD_DATA_DIR": str(folder), **_COMPILED}
    return {**os.environ, **stores.environment(), **own, **more}


def run_load(name: str, sources: Sequence[Path], given: Mapping[str, str], *, agency: str = "bench") -> Run:
    """Start a load and stay with it to its end. Raises `RuntimeError` with what it said when it fails."""
    command = [str(Path(sys.executable).with_name("homeward")), "--json", "load", "start", name]
    command += [*map(str, sources), "--agency", agency, "--gallery", "missing"]
    begun = time.monotonic()
    told: list[tuple[float, dict[str, Any]]] = []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=dict(given), stdout=subprocess.PIPE, stderr=errors, text=True)
        watch = _Watch(process.pid)
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            told.append((time.monotonic(), said))
            watch.photos = int(said.get("photos_done", watch.photos))
        code = process.wait()
        seconds = time.monotonic() - begun
        watch.end()
        if code not in (0, 6):
            errors.seek(0)
            raise RuntimeError(f"load {name} ended with {code}: {told[-1:]} {errors.read()[-2000:]}")
    final = told[-1][1]
    return Run(seconds, int(final["photos_done"]), final, _steady(told), tuple(watch.samples))


def run_bare(archive: Path) -> dict[str, Any]:
    """The figures of `benchmarks.load_bare` in a process of its own, with those of the whole command."""
    command = [sys.executable, "-m", "benchmarks.load_bare", str(archive)]
    begun = time.monotonic()
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **_COMPILED})
    seconds = time.monotonic() - begun
    figures: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return {**figures, "whole_s": seconds, "whole_photos_per_s": figures["photos"] / seconds}


def _steady(told: Sequence[tuple[float, Mapping[str, Any]]]) -> float:
    """Photos per second between the first lines that say of committed photos."""
    seen = [(at, int(said["photos_done"])) for at, said in told if said.get("photos_done", 0) >= _EMBEDDING]
    done = max((photos for _, photos in seen), default=0)
    last = next((at for at, photos in seen if photos == done), 0.0)
    if len(seen) < 2 or last <= seen[0][0]:
        return 0.0
    return (done - seen[0][1]) / (last - seen[0][0])


class _Watch(threading.Thread):
    """Samples the private memory of a process and all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._end = threading.Event()
        self.photos = 0
        self.samples: list[Sample] = [Sample(0, 0)]

    def run(self) -> None:
        while not self._end.wait(_SAMPLE_S):
            self.samples.append(Sample(self.photos, self._private()))

    def end(self) -> None:
        """No more samples."""
        self._end.set()
        self.join()

    def _private(self) -> int:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        total = sum(map(_uss, processes))
        return total + _object_store(processes)


def _uss(process: psutil.Process) -> int:
    """Pages that this process alone has. From the kernel's own sum: adding up the parts of a process that
    has torch takes long enough to slow down what is measured."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    kilobytes = sum(
        int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))
    )
    return kilobytes * 1024


def _object_store(processes: Sequence[psutil.Process]) -> int:
    """Pages of Ray's shared memory that are in use, as its node process has them."""
    most = 0
    for process in processes:
        try:
            if process.name() != "raylet":
                continue
            maps = [one for one in process.memory_maps(grouped=True) if "plasma" in one.path]
        except psutil.Error:
            continue
        most = max(most, sum(one.rss - one.private_clean - one.private_dirty for one in maps))
    return most

"""A backup or a restore in a process of its own, which is killed where it shall be."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

from cluster.backup.create import create
from cluster.backup.place import open_place
from cluster.backup.restore import restore
from cluster.backup.stores import open_stores
from cluster.backup.verify import Backup
from homeward.config import Settings
from tests.cluster.backup.world import KEY
from tests.cluster.fakes import MODEL_ID

_REACHED_S = 60.0
_forking = multiprocessing.get_context("forkserver")


def kill_at(action: str, settings: Settings, place: str, step: str, count: int) -> None:
    """Run `action` ("create" or "restore"), and kill -9 it when it says the step for the n-th time."""
    _forking.set_forkserver_preload(["tests.cluster.backup.killed"])
    ours, theirs = _forking.Pipe(duplex=False)
    process = _forking.Process(target=_main, args=(action, settings, place, step, count, theirs))
    process.start()
    theirs.close()
    try:
        assert ours.poll(_REACHED_S), f"{action} never came to {step}"
        assert ours.recv() == step
    finally:
        process.kill()
        process.join()


def _main(action: str, settings: Settings, place: str, step: str, count: int, reached: Connection) -> None:
    left = count

    def stay(now: str, _done: int, _of: int) -> None:
        nonlocal left
        left -= now == step
        if not left:
            reached.send(step)
            time.sleep(2 * _REACHED_S)

    with open_stores(settings, restoring=action == "restore") as stores:
        if action == "create":
            create(stores, open_place(place, settings, there=False), KEY, stay)
        else:
            restore(Backup(open_place(place, settings, there=True), KEY), stores, MODEL_ID, stay)

"""Which gRPC servers there are and with which models: they say so in the catalogue while models are upgraded.

Nothing is decided by it that the catalogue's own transactions decide; it tells an operator's command what to
wait for.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from catalogue.store import Catalogue
from catalogue.upgrade_types import UpgradeModel
from cluster.load.patience import Stopped
from homeward.errors import Conflict

TELL_S = 1.0
ALIVE = timedelta(seconds=15)  # a server that has said nothing for so long runs no more, or reaches nothing

SERVERS_S = 180.0  # servers load model and index of the other model meanwhile

_WAIT_S = 0.5
_AREA = "upgrade_server/"

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class ServerNote:
    """What a server said of itself."""

    name: str
    address: str
    serving: str  # model id
    loaded: tuple[str, ...]  # model ids that it could serve with at once


class ServerNotes:
    """The servers' notes. Blocking and thread-safe.

    They bear the time of the catalogue: of servers whose clocks go wrong it is known, too, whether they live.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def tell(self, note: ServerNote) -> None:
        """Say what a server does; once a second while an upgrade is under way."""
        said = {
            "address": note.address,
            "at": self._catalogue.shared_now().isoformat(),
            "serving": note.serving,
            "loaded": list(note.loaded),
        }
        self._catalogue.set_meta(_AREA + note.name, json.dumps(said))

    def leave(self, name: str) -> None:
        """A server ends, or has nothing to say any more."""
        self._catalogue.drop_meta(_AREA + name)

    def alive(self) -> list[ServerNote]:
        """Servers that said something lately, by address."""
        found = []
        since = self._catalogue.shared_now() - ALIVE
        for key, text in self._catalogue.list_meta(_AREA).items():
            said = json.loads(text)
            if datetime.fromisoformat(said["at"]) <= since:
                continue
            note = ServerNote(
                name=key.removeprefix(_AREA),
                address=str(said["address"]),
                serving=str(said["serving"]),
                loaded=tuple(said["loaded"]),
            )
            found.append(note)
        return sorted(found, key=lambda note: (note.address, note.name))


class Servers:
    """The servers that run, as far as they said so, and waiting for them."""

    def __init__(self, notes: ServerNotes, stop: threading.Event, tell: Tell) -> None:
        self._notes = notes
        self._stop = stop
        self._tell = tell

    def wait_loaded(self, model: UpgradeModel) -> None:
        """Wait until every server could serve with the model at once."""
        self._wait(lambda note: model.model_id in note.loaded, f"to load {model.bundle}")

    def wait_serving(self, model: UpgradeModel) -> None:
        """Wait until every server serves with the model."""
        self._wait(lambda note: note.serving == model.model_id, f"to serve with {model.bundle}")

    def wait_unloaded(self, model: UpgradeModel) -> None:
        """Wait until no server has the model."""
        self._wait(lambda note: model.model_id not in note.loaded, f"to let go of {model.bundle}")

    def _wait(self, is_so: Callable[[ServerNote], bool], what: str) -> None:
        """Raises `Conflict` (SERVERS_NOT_READY), `Stopped`."""
        give_up = time.monotonic() + SERVERS_S
        told = False
        while left := [note.address for note in self._notes.alive() if not is_so(note)]:
            if self._stop.is_set():
                raise Stopped("stopped by request")
            if time.monotonic() > give_up:
                raise Conflict(
                    f"{', '.join(left)} took more than {SERVERS_S:.0f} s {what}: see that server's log (is "
                    "the bundle installed there?), or stop it; then try again",
                    code="SERVERS_NOT_READY",
                )
            if not told:
                self._tell(f"waiting for {', '.join(left)} {what}")
                told = True
            self._stop.wait(_WAIT_S)

"""The ledger of bulk loads: which there are, who drives each, and which of their parts are done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from catalogue import load_reading, loads, undoing
from catalogue.engine import Database
from catalogue.load_types import DonePart, Lease, Load, LoadState, LoadSums, Undone, check_load_name
from homeward.clock import Clock


class LoadLedger:
    """Loads of one catalogue; `Catalogue.loads`. All methods block, and are one transaction each.

    Those that take a lease raise `Conflict` (LEASE_LOST) when another driver has taken the load since, or
    when it was cancelled: then nothing was changed.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(self, name: str, spec: str, holder: str) -> Lease:
        """A new load, to be planned, driven by `holder`. Raises `Conflict` (LOAD_EXISTS)."""
        check_load_name(name)
        with self._database.writing() as connection:
            return loads.create(connection, name, spec, holder, self._clock.now())

    def take(self, name: str, holder: str, lapse_s: float, *, dead: int | None = None) -> Lease:
        """Drive a load that nobody drives, or whose driver has said nothing for `lapse_s` seconds, or has the
        fence `dead`: that one is known to be no more.

        Raises `NotFound`, and `Conflict` (LOAD_BUSY) while its driver lives."""
        with self._database.writing() as connection:
            lapse, now = timedelta(seconds=lapse_s), self._clock.now()
            return loads.take(connection, name, holder, lapse, now, dead=dead)

    def renew(self, lease: Lease) -> None:
        """Say that the driver lives."""
        with self._database.writing() as connection:
            loads.renew(connection, lease, self._clock.now())

    def planned(self, lease: Lease, *, parts: int, photos: int, spec: str) -> None:
        """So many parts lie ready, with so many photos to be accounted for; `spec` as it was settled."""
        with self._database.writing() as connection:
            loads.planned(connection, lease, parts, photos, spec)

    def settle_model(self, lease: Lease, model_id: str, dimension: int) -> None:
        """The load is embedded by this model from its first photo to its last. Raises `Conflict` (LOAD_MODEL)
        when it was begun with another."""
        with self._database.writing() as connection:
            loads.settle_model(connection, lease, model_id, dimension)

    def discard(self, lease: Lease) -> None:
        """Forget a load that could not be planned: its name is free again. Raises `Conflict` (LOAD_PLANNED)
        for any other."""
        with self._database.writing() as connection:
            loads.discard(connection, lease)

    def begin(self, lease: Lease, state: LoadState) -> None:
        """The load is in this state from now on."""
        with self._database.writing() as connection:
            loads.begin(connection, lease, state)

    def release(self, lease: Lease, state: LoadState, message: str = "") -> None:
        """End driving the load, in this state and why."""
        with self._database.writing() as connection:
            loads.release(connection, lease, state, message, self._clock.now())

    def cancel(self, name: str) -> Load:
        """Take the load from whoever drives it: none of its parts commits from now on.

        Raises `NotFound`, and `Conflict` (LOAD_ENDED) for one that is done or undone."""
        with self._database.writing() as connection:
            return loads.cancel(connection, name)

    def add_parts(
        self, lease: Lease, records_of: Mapping[int, Iterable[str]], *, reinstate_until: int = 0
    ) -> None:
        """Note which records (ids) the documents of these parts will name: they go from them when deleted.
        Those that were deleted before go too, but for deletions up to the rev `reinstate_until`."""
        with self._database.writing() as connection:
            loads.add_parts(connection, lease, records_of, self._clock.now(), reinstate_until=reinstate_until)

    def laid_ready(self, lease: Lease, parts: Sequence[int], *, reinstate_until: int = 0) -> None:
        """The documents of parts that were noted are written: what was deleted meanwhile goes from them."""
        with self._database.writing() as connection:
            loads.laid_ready(connection, lease, parts, self._clock.now(), reinstate_until=reinstate_until)

    def overlapping(self, name: str) -> list[str]:
        """Other loads, not undone, that name records of this one. What they found there before may be what
        this one brought."""
        with self._database.reading() as connection:
            return load_reading.overlapping(connection, name)

    def commit_part(self, lease: Lease, part: DonePart) -> str:
        """Note that a part is done; the name of the outcome file that counts.

        Of a part that is done already the first file counts: remove the other."""
        with self._database.writing() as connection:
            return loads.commit_part(connection, lease, part, self._clock.now())

    def get(self, name: str) -> Load:
        """One load. Raises `NotFound`."""
        with self._database.reading() as connection:
            return load_reading.load_of(connection, name)

    def all(self) -> list[Load]:
        """All loads, the newest first."""
        with self._database.reading() as connection:
            return load_reading.read_all(connection)

    def parts(self, name: str) -> list[DonePart]:
        """The load's committed parts, in order."""
        with self._database.reading() as connection:
            return load_reading.read_parts(connection, name)

    def sums(self, name: str) -> LoadSums:
        """Committed parts, photos accounted for, face rows, and photos rejected."""
        with self._database.reading() as connection:
            return load_reading.read_sums(connection, name)

    def document_of(self, name: str, part: int) -> str | None:
        """The outcome file of a part; None while it is not committed."""
        with self._database.reading() as connection:
            return load_reading.document_of(connection, name, part)

    def undo_some(self, lease: Lease, limit: int = 64) -> Undone:
        """Take back up to so many records, or what the load added to them, in one transaction.

        What nothing refers to any more becomes pending in `Catalogue.erase`. Nothing of other origin changes:
        a record that somebody else has added to stays with what they added."""
        with self._database.committing() as revs:
            loads.check(revs.connection, lease)
            done = undoing.undo_some(revs, lease.load, limit, self._clock.now())
            return Undone(done, revs.last)

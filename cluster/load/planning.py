"""Plans a load: lists its sources, reads who is who, cuts it into parts and lays them ready."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from catalogue.ledger import LoadLedger
from catalogue.load_types import Lease
from cluster.load.load_documents import LoadDocuments
from cluster.load.manifest import open_manifest
from cluster.load.members import Source
from cluster.load.part_reader import check_state
from cluster.load.parts import cut
from cluster.load.plan import Plan
from cluster.load.plan_types import Part, PlannedPhoto, Totals
from cluster.load.spec import LoadSpec
from homeward.errors import Conflict, HomewardError, StoreUnavailable
from homeward.ids import record_id

_NOTED_AT_A_TIME = 16  # parts whose records are noted by one transaction

OpenSource = Callable[[str], Source]


@dataclass(frozen=True, slots=True)
class Planned:
    """A load that lies ready."""

    spec: LoadSpec  # as it was settled
    parts: int
    photos: int  # to be accounted for: those that are left out too


@dataclass(frozen=True, slots=True)
class Look:
    """What a source holds, for a dry run."""

    totals: Totals
    parts: int
    sample: tuple[PlannedPhoto, ...]  # photos spread over the archive
    left_out: tuple[PlannedPhoto, ...]  # the first of what is not loaded


@dataclass(frozen=True, slots=True)
class Planner:
    """Lays loads ready."""

    ledger: LoadLedger
    documents: LoadDocuments
    open_source: OpenSource
    check: Callable[[], None] = lambda: None  # called for each photo; raises when the load is to be stopped

    def lay_ready(self, spec: LoadSpec, lease: Lease) -> Planned:
        """Write every part to the documents and note it in the ledger. Again: the same parts.

        Raises `InvalidInput` for sources and manifests that cannot be read, `Conflict` (LEASE_LOST): then
        nothing of this planner's stays.
        """
        reinstate_until = spec.reinstate_until if spec.reinstate else 0
        laying = _Laying(lease, self.ledger, self.documents, reinstate_until)
        try:
            with _planned(spec, self.open_source, self.check) as (plan, states):
                for part in cut(plan.photos(), spec.part_photos, spec.part_bytes):
                    self.check()
                    laying.add(replace(part, agency=spec.agency, gallery=spec.gallery))
                laying.lay()
                unknown = plan.totals().unknown_columns
        except Conflict:
            with suppress(HomewardError):
                self.documents.drop_parts(lease.load, lease.fence)
            raise
        settled = replace(spec, states=states, unknown_columns=unknown, planned_by=lease.fence)
        return Planned(settled, laying.parts, laying.photos)


class _Laying:
    """Lays parts ready, some at a time. What they name is noted before they are written: a deletion finds
    them then, whatever dies; and again after, for one that came between."""

    def __init__(
        self, lease: Lease, ledger: LoadLedger, documents: LoadDocuments, reinstate_until: int
    ) -> None:
        self._lease = lease
        self._ledger = ledger
        self._documents = documents
        self._reinstate_until = reinstate_until
        self._held: list[Part] = []
        self.parts = 0
        self.photos = 0

    def add(self, part: Part) -> None:
        """One more part; laid ready with those before it once they are enough."""
        self._held.append(part)
        if len(self._held) == _NOTED_AT_A_TIME:
            self.lay()

    def lay(self) -> None:
        """Lay ready what was added."""
        noted = {
            part.number: {record_id(part.key(photo.reference)) for photo in part.photos if photo.reference}
            for part in self._held
        }
        self._ledger.add_parts(self._lease, noted, reinstate_until=self._reinstate_until)
        for part in self._held:
            self._documents.put_part(self._lease.load, self._lease.fence, part)
            self.parts, self.photos = self.parts + 1, self.photos + len(part.photos)
        self._ledger.laid_ready(self._lease, list(noted), reinstate_until=self._reinstate_until)
        self._ledger.renew(self._lease)
        self._held = []


def look(spec: LoadSpec, open_source: OpenSource, sample: int, shown: int) -> Look:
    """Count and list without writing anything. Raises `InvalidInput`."""
    with _planned(spec, open_source, lambda: None) as (plan, _):
        totals = plan.totals()
        step = max(1, totals.photos // max(1, sample))
        parts, good, picked, left_out = 0, 0, list[PlannedPhoto](), list[PlannedPhoto]()
        for part in cut(plan.photos(), spec.part_photos, spec.part_bytes):
            parts += 1
            for photo in part.photos:
                if photo.code:
                    left_out += [photo] if len(left_out) < shown else []
                    continue
                picked += [photo] if good % step == 0 and len(picked) < sample else []
                good += 1
    return Look(totals, parts, tuple(picked), tuple(left_out))


def check_sources(spec: LoadSpec, open_source: OpenSource) -> None:
    """Raise `Conflict` (SOURCE_CHANGED) unless the sources are those that were planned from."""
    for uri, state in zip(spec.sources, spec.states, strict=True):
        with open_source(uri) as source:
            check_state(uri, source, state)


@contextmanager
def _planned(
    spec: LoadSpec, open_source: OpenSource, check: Callable[[], None]
) -> Iterator[tuple[Plan, tuple[str, ...]]]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="homeward-load-"))
        sources: Sequence[Source] = [stack.enter_context(open_source(uri)) for uri in spec.sources]
        plan = stack.enter_context(Plan(Path(folder) / "plan.sqlite"))
        try:
            plan.make(sources, open_manifest(Path(spec.manifest)) if spec.manifest else None, check)
            yield plan, tuple(source.state() for source in sources)
        except sqlite3.Error as error:
            raise StoreUnavailable(
                f"the plan of this load cannot be written to {folder}: {error}; make room there, or "
                "set TMPDIR to a larger place",
                store="plan",
            ) from error


def absolute(source: str) -> str:
    """A source as every worker finds it."""
    return source if "://" in source else str(Path(source).absolute())

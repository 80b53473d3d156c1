"""Plans a load: lists its sources, reads who is who, cuts it into parts and lays them ready."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from catalogue.ledger import LoadLedger
from catalogue.load_types import Lease
from cluster.load.load_documents import LoadDocuments
from cluster.load.manifest import open_manifest
from cluster.load.members import Source
from cluster.load.parts import cut
from cluster.load.plan import Plan
from cluster.load.plan_types import PlannedPhoto, Totals
from cluster.load.spec import LoadSpec
from homeward.errors import Conflict
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


def lay_ready(
    spec: LoadSpec, lease: Lease, ledger: LoadLedger, documents: LoadDocuments, open_source: OpenSource
) -> Planned:
    """Write every part to the documents and note it in the ledger. Again: the same parts.

    Raises `InvalidInput` for sources and manifests that cannot be read, `Conflict` (LEASE_LOST).
    """
    parts = photos = 0
    noted: dict[int, set[str]] = {}
    with _planned(spec, open_source) as (plan, states):
        for part in cut(plan.photos(), spec.part_photos, spec.part_bytes):
            part_ = replace(part, agency=spec.agency, gallery=spec.gallery)
            noted[part.number] = {
                record_id(part_.key(photo.reference)) for photo in part.photos if photo.reference
            }
            documents.put_part(lease.load, part_)
            parts, photos = parts + 1, photos + len(part.photos)
            if len(noted) == _NOTED_AT_A_TIME:
                ledger.add_parts(lease, noted, reinstate=spec.reinstate)
                ledger.renew(lease)
                noted = {}
        ledger.add_parts(lease, noted, reinstate=spec.reinstate)
        settled = replace(spec, states=states, unknown_columns=plan.totals().unknown_columns)
    return Planned(settled, parts, photos)


def look(spec: LoadSpec, open_source: OpenSource, sample: int, shown: int) -> Look:
    """Count and list without writing anything. Raises `InvalidInput`."""
    with _planned(spec, open_source) as (plan, _):
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
            if source.state() != state:
                raise Conflict(
                    f"{uri} is not what it was when the load was planned; put it back, or cancel and undo "
                    "this load and start another",
                    code="SOURCE_CHANGED",
                )


@contextmanager
def _planned(spec: LoadSpec, open_source: OpenSource) -> Iterator[tuple[Plan, tuple[str, ...]]]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="homeward-load-"))
        sources: Sequence[Source] = [stack.enter_context(open_source(uri)) for uri in spec.sources]
        plan = stack.enter_context(Plan(Path(folder) / "plan.sqlite"))
        plan.make(sources, open_manifest(Path(spec.manifest)) if spec.manifest else None)
        yield plan, tuple(source.state() for source in sources)


def absolute(source: str) -> str:
    """A source as every worker finds it."""
    return source if "://" in source else str(Path(source).absolute())

"""`doctor`: do catalogue, gallery, photo store and index agree, and what to do where they do not.

The catalogue decides. What it does not know is an orphan of a write that never committed, and mending
removes it; what it knows and another store lost is made anew where the photo is still there, else
reported: nothing is dropped from the catalogue silently.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import TypeVar

from catalogue.types import Item, Store
from cluster.compose import Parts
from cluster.rows import face_row
from cluster.searchlog_verify import verify
from homeward.errors import Corrupt, HomewardError, NotFound
from homeward.types import FaceRow
from index.columns import INTEGER_COLUMNS, hex_ids

_DISK_LOW = 2 << 30  # bytes
_SAMPLED = 32  # photos whose checksum is read
_CHUNK = 512


class State(StrEnum):
    """How a check ended."""

    OK = "OK"
    MENDED = "MENDED"
    WARNING = "WARNING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding, and what to do about it."""

    name: str
    state: State
    finding: str
    remedy: str = ""


Value = TypeVar("Value")

_MEND = "run homeward doctor --mend"


async def diagnose(parts: Parts, *, mend: bool) -> list[Check]:
    """Run every check. One that cannot run is a failed check, and the others go on."""
    checks: list[tuple[str, Callable[[Parts, bool], Awaitable[Check]]]] = [
        ("disk", _disk),
        ("model", _model),
        ("catalogue", _catalogue),
        ("deletions", _deletions),
        ("photos", _photos),
        ("gallery", _gallery),
        ("facts", _facts),
        ("index", _index),
        ("search log", _search_log),
    ]
    found = []
    for name, check in checks:
        try:
            one = await check(parts, mend)
        except HomewardError as error:
            one = Check(name, State.FAILED, error.message, "see the message; then run doctor again")
        found.append(replace(one, name=name))
    return found


async def _disk(parts: Parts, _: bool) -> Check:
    usage = shutil.disk_usage(parts.settings.data_dir)
    free = f"{usage.free / 2**30:.1f} GiB free in {parts.settings.data_dir}"
    if usage.free < _DISK_LOW:
        return Check("", State.WARNING, free, "make room: writes and searches stop when it is full")
    return Check("", State.OK, free)


async def _model(parts: Parts, _: bool) -> Check:
    model = f"{parts.embedding.model_id} on {parts.embedding.device}"
    if parts.calibration is None:
        return Check(
            "",
            State.WARNING,
            f"{model}; no calibration, so there is no log-likelihood ratio",
            "homeward models calibrate --pairs DIR, with photos like yours",
        )
    return Check("", State.OK, f"{model}; calibrated on {parts.calibration.dataset}")


async def _catalogue(parts: Parts, _: bool) -> Check:
    counts = await _run(parts, parts.catalogue.counts)
    return Check(
        "",
        State.OK,
        f"{counts.records:,} records ({counts.searchable:,} searchable), {counts.photos:,} photos, "
        f"{counts.faces:,} faces, {counts.tombstones:,} deleted, rev {counts.rev}",
    )


async def _deletions(parts: Parts, mend: bool) -> Check:
    if mend:
        await _run(parts, parts.eraser.sweep)
    left = len(await _run(parts, parts.catalogue.pending_erasures))
    if left:
        return Check("", State.WARNING, f"{left} rows and photos wait to be removed", _MEND)
    return Check("", State.OK, "nothing waits to be removed")


async def _photos(parts: Parts, mend: bool) -> Check:
    def compare() -> tuple[list[str], list[Item], int]:
        missing: list[str] = []
        orphans: list[Item] = []
        wrong = 0
        intended = parts.catalogue.intended(Store.PHOTOS)
        for agency in sorted({*parts.photos.agencies(), *parts.catalogue.agencies()}):
            stored = set(_stored(parts, agency))
            wanted = set(parts.catalogue.referenced_photos(agency))
            missing += sorted(wanted - stored)
            orphans += [
                Item(Store.PHOTOS, "", sha256, agency)
                for sha256 in sorted(stored - wanted)
                if (agency, sha256) not in intended
            ]
            for sha256 in islice(sorted(wanted & stored), _SAMPLED):
                try:
                    parts.photos.get(agency, sha256)
                except (Corrupt, NotFound):
                    wrong += 1
        return missing, orphans, wrong

    missing, orphans, wrong = await _run(parts, compare)
    if wrong or missing:
        return Check(
            "",
            State.FAILED,
            f"{len(missing)} photos are missing, {wrong} of those sampled are damaged",
            "restore them from a backup, or enrol them again: their bytes are gone here",
        )
    return await _orphans(parts, orphans, mend, "photos")


async def _gallery(parts: Parts, mend: bool) -> Check:
    def compare() -> tuple[list[str], list[Item]]:
        wanted = {
            face.face_id: face.record_id
            for face in parts.catalogue.all_faces()
            if face.model_id == parts.embedding.model_id
        }
        intended = parts.catalogue.intended(Store.GALLERY)
        seen: set[str] = set()
        orphans = []
        for columns in parts.gallery.iterate():
            for face, record in zip(hex_ids(columns.face), hex_ids(columns.record), strict=True):
                seen.add(face)
                if face not in wanted and ("", face) not in intended:
                    orphans.append(Item(Store.GALLERY, record, face))
        return sorted(wanted.keys() - seen), orphans

    missing, orphans = await _run(parts, compare)
    if missing and not mend:
        return Check("", State.FAILED, f"{len(missing)} enrolled faces have no template", _MEND)
    lost = await _reembed(parts, missing) if missing else []
    if lost:
        return Check(
            "",
            State.FAILED,
            f"{len(lost)} enrolled faces have no template, and their photos do not give them again",
            f"enrol the photos of these records again: {', '.join(lost[:5])}",
        )
    found = await _orphans(parts, orphans, mend, "templates")
    if missing:
        return replace(
            found, state=State.MENDED, finding=f"{len(missing)} templates made anew; {found.finding}"
        )
    return found


async def _orphans(parts: Parts, orphans: list[Item], mend: bool, what: str) -> Check:
    if not orphans:
        return Check("", State.OK, f"all {what} are there, and no others")
    if not mend:
        return Check("", State.WARNING, f"{len(orphans)} {what} belong to no record", _MEND)

    def remove() -> None:
        parts.catalogue.add_pending(orphans)
        parts.eraser.sweep(orphans[0].store)

    await _run(parts, remove)
    return Check("", State.MENDED, f"{len(orphans)} {what} that belonged to no record were removed")


async def _reembed(parts: Parts, missing: list[str]) -> list[str]:
    """Make lost templates anew from the stored photos; the records where that failed."""
    lost: list[str] = []
    faces = await _run(parts, lambda: parts.catalogue.faces(missing))
    for face in faces.values():
        try:
            record = await _run(parts, parts.catalogue.get, face.record_id)
            content = await _run(parts, parts.photos.get, record.key.agency, face.sha256)
            seen = await parts.embedding.embed(content)
            again = next(one for one in seen.faces if one.ordinal == face.ordinal)
            columns = (await _run(parts, parts.catalogue.row_source, face.record_id))[face.sha256]
        except (HomewardError, StopIteration):
            lost.append(face.record_id)
            continue
        row = face_row(again, record=face.record_id, photo=face.sha256, model=face.model_id, columns=columns)
        await _run(parts, parts.gallery.upsert, [row])
    return sorted(set(lost))


async def _facts(parts: Parts, mend: bool) -> Check:
    """Filter columns against the catalogue's facts."""

    def compare() -> int:
        stale = 0
        for columns in parts.gallery.iterate(_CHUNK):
            records = sorted(set(hex_ids(columns.record)))
            now = {row.face_id: row for row in parts.follower.current_rows(records).face_rows()}
            wrong = [now[row.face_id] for row in columns.face_rows() if _stale(row, now.get(row.face_id))]
            stale += len(wrong)
            if mend and wrong:
                parts.gallery.upsert(wrong)
        return stale

    stale = await _run(parts, compare)
    if not stale:
        return Check("", State.OK, "the filter columns say what the records say")
    if mend:
        return Check("", State.MENDED, f"{stale} templates had old filter columns")
    return Check("", State.WARNING, f"{stale} templates have old filter columns", _MEND)


async def _index(parts: Parts, mend: bool) -> Check:
    def compare() -> tuple[int, int]:
        parts.follower.catch_up()
        return parts.index.rows, len(parts.follower.catalogued_faces())

    rows, wanted = await _run(parts, compare)
    if rows == wanted and not mend:
        return Check("", State.OK, f"{rows:,} templates searchable at rev {parts.index.rev}")
    if not mend:
        return Check("", State.FAILED, f"{rows:,} templates are searchable, {wanted:,} are enrolled", _MEND)
    reloaded = await _run(parts, parts.follower.load)
    state = State.OK if rows == reloaded == wanted else State.MENDED
    if reloaded != wanted:
        return Check("", State.FAILED, f"{reloaded:,} templates could be loaded of {wanted:,}", "see gallery")
    return Check("", state, f"{reloaded:,} templates searchable at rev {parts.index.rev}")


async def _search_log(parts: Parts, _: bool) -> Check:
    report = await _run(parts, verify, parts.settings.data_dir / "search-log")
    return Check("", State.OK if report.complete else State.FAILED, report.finding, report.remedy)


def _stale(row: FaceRow, now: FaceRow | None) -> bool:
    return now is not None and any(getattr(row, name) != getattr(now, name) for name in INTEGER_COLUMNS)


def _stored(parts: Parts, agency: str) -> Iterator[str]:
    after: str | None = None
    while page := parts.photos.list(agency, after):
        yield from page
        after = page[-1]


async def _run(parts: Parts, call: Callable[..., Value], *arguments: object) -> Value:
    return await asyncio.get_running_loop().run_in_executor(parts.blocking, call, *arguments)

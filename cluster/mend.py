"""`doctor`: do catalogue, gallery, photo store and index agree, and what to do where they do not.

The catalogue decides. What it does not know is an orphan of a write that never committed, and mending
removes it; what it knows and another store lost is made anew where the photo is still there, else
reported: nothing is dropped from the catalogue silently.

Enrolments go on meanwhile. So a store is listed first, then what writers have announced, then what the
catalogue has: whatever was stored by then is in one of the two. What seems missing is asked for again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import islice

from catalogue.types import Item, Store
from cluster.check_search import check_searching
from cluster.checks import (
    MEND,
    Check,
    check_catalogue,
    check_deletions,
    check_disk,
    check_model,
    check_search_log,
    check_server,
    failed,
    mended,
    ok,
    run,
    warning,
)
from cluster.compose import Parts
from cluster.rows import face_row
from homeward.errors import Corrupt, HomewardError, NotFound
from homeward.types import FaceRow
from index.columns import INTEGER_COLUMNS, hex_ids
from index.router import Router

_SAMPLED = 32  # photos of an agency whose checksum is read
_CHUNK = 512


async def diagnose(parts: Parts, *, mend: bool) -> list[Check]:
    """Run every check. One that cannot run is a failed check, and the others go on."""
    checks: list[tuple[str, Callable[[Parts, bool], Awaitable[Check]]]] = [
        ("disk", check_disk),
        ("server", check_server),
        ("model", check_model),
        ("catalogue", check_catalogue),
        ("deletions", check_deletions),
        ("photos", _photos),
        ("gallery", _gallery),
        ("facts", _facts),
        ("index", _index),
        ("search", check_searching),
        ("search log", check_search_log),
    ]
    found = []
    for name, check in checks:
        try:
            one = await check(parts, mend)
        except HomewardError as error:
            one = failed(error.message, "see the message; then run doctor again")
        found.append(replace(one, name=name))
    return found


async def _photos(parts: Parts, mend: bool) -> Check:
    def compare() -> tuple[int, int, list[Item]]:
        missing, damaged = 0, 0
        orphans: list[Item] = []
        for agency in sorted({*parts.photos.agencies(), *parts.catalogue.agencies()}):
            stored = set(_stored(parts, agency))
            announced = parts.catalogue.intended(Store.PHOTOS)
            wanted = set(parts.catalogue.referenced_photos(agency))
            for sha256 in wanted - stored:
                gone = not parts.photos.exists(agency, sha256)
                missing += gone and parts.catalogue.photo_referenced(agency, sha256)
            orphans += [
                Item(Store.PHOTOS, "", sha256, agency)
                for sha256 in sorted(stored - wanted)
                if (agency, sha256) not in announced
            ]
            # Hashes are as good as random, so the first ones are a fair sample.
            for sha256 in islice(sorted(wanted & stored), _SAMPLED):
                try:
                    parts.photos.get(agency, sha256)
                except Corrupt:
                    damaged += 1
                except NotFound:
                    continue  # deleted meanwhile
        return missing, damaged, orphans

    missing, damaged, orphans = await run(parts, compare)
    found = await _orphans(parts, orphans, mend, "photos")
    if missing or damaged:
        return failed(
            f"{missing} photos are missing, {damaged} of those sampled are damaged; {found.finding}",
            "restore them from a backup, or enrol them again: their bytes are gone here",
        )
    return found


async def _gallery(parts: Parts, mend: bool) -> Check:
    def compare() -> tuple[list[str], list[Item]]:
        stored: dict[str, str] = {}
        for columns in parts.gallery.iterate():
            stored.update(zip(hex_ids(columns.face), hex_ids(columns.record), strict=True))
        announced = parts.catalogue.intended(Store.GALLERY)
        wanted = parts.rows.catalogued_faces()
        orphans = [
            Item(Store.GALLERY, record, face)
            for face, record in stored.items()
            if face not in wanted and ("", face) not in announced
        ]
        unseen = sorted(wanted - stored.keys())
        there = set(hex_ids(parts.gallery.get(unseen).face))
        still = parts.catalogue.faces(face for face in unseen if face not in there)
        return sorted(still), orphans

    missing, orphans = await run(parts, compare)
    if missing and not mend:
        return failed(f"{len(missing)} enrolled faces have no template", MEND)
    lost = await _reembed(parts, missing) if missing else []
    found = await _orphans(parts, orphans, mend, "templates")
    if lost:
        return failed(
            f"{len(lost)} records have faces without a template, and their photos do not give it again; "
            f"{found.finding}",
            f"enrol the photos of these records again: {', '.join(lost[:5])}",
        )
    return mended(f"{len(missing)} templates made anew; {found.finding}") if missing else found


async def _orphans(parts: Parts, orphans: list[Item], mend: bool, what: str) -> Check:
    if not orphans:
        return ok(f"all {what} are there, and no others")
    if not mend:
        return warning(f"{len(orphans)} {what} belong to no record", MEND)

    def remove() -> None:
        parts.catalogue.add_pending(orphans)
        parts.eraser.sweep(orphans[0].store)

    await run(parts, remove)
    return mended(f"{len(orphans)} {what} that belonged to no record were removed")


async def _reembed(parts: Parts, missing: list[str]) -> list[str]:
    """Make lost templates anew from the stored photos; the records where that failed."""
    lost: set[str] = set()
    faces = await run(parts, parts.catalogue.faces, missing)
    for face in faces.values():
        try:
            record = await run(parts, parts.catalogue.get, face.record_id)
            content = await run(parts, parts.photos.get, record.key.agency, face.sha256)
            seen = await parts.embedding.embed(content)
            again = next(one for one in seen.faces if one.ordinal == face.ordinal)
            columns = (await run(parts, parts.catalogue.row_source, face.record_id))[face.sha256]
        except (HomewardError, StopIteration, KeyError):
            lost.add(face.record_id)
            continue
        row = face_row(again, record=face.record_id, photo=face.sha256, model=face.model_id, columns=columns)
        await run(parts, parts.rows.put, [row])
    return sorted(lost)


async def _facts(parts: Parts, mend: bool) -> Check:
    """Filter columns against the catalogue's facts."""

    def compare() -> int:
        stale = 0
        for columns in parts.gallery.iterate(_CHUNK):
            records = sorted(set(hex_ids(columns.record)))
            now = {row.face_id: row for row in parts.rows.current(records).face_rows()}
            wrong = {row.record_id for row in columns.face_rows() if _stale(row, now.get(row.face_id))}
            stale += len(wrong)
            if mend and wrong:
                parts.rows.rewrite(wrong)
        return stale

    stale = await run(parts, compare)
    if not stale:
        return ok("the filter columns say what the records say")
    if mend:
        return mended(f"the templates of {stale} records had old filter columns")
    return warning(f"the templates of {stale} records have old filter columns", MEND)


async def _index(parts: Parts, mend: bool) -> Check:
    if parts.router is not None:
        return await _shards(parts.router)

    def compare() -> tuple[int, int, int]:
        # Rows that many writes change between the two readings are asked for again.
        for _ in range(3):
            parts.follower.catch_up()
            held, wanted = set(parts.index.face_ids()), parts.rows.catalogued_faces()
            if held == wanted:
                break
        return len(held), len(wanted), len(held ^ wanted)

    rows, wanted, differ = await run(parts, compare)
    said = f"{rows:,} templates searchable at rev {parts.index.rev}"
    if not mend:
        return ok(said) if not differ else failed(f"{said}, {wanted:,} are enrolled, {differ:,} differ", MEND)
    # Also when the counts agree: rows that were made anew or corrected above must get in.
    reloaded = await run(parts, parts.follower.load)
    _, wanted, left = await run(parts, compare)
    if left:
        return failed(f"{reloaded:,} templates could be loaded of {wanted:,}", "see gallery above")
    return ok(said) if not differ else mended(f"{reloaded:,} templates searchable, {rows:,} before")


async def _shards(router: Router) -> Check:
    health = await router.status()
    silent = [one.name for one in health.shards if one.status is None]
    said = (
        f"{len(health.shards)} shards, epoch {health.epoch}, {health.uncovered} slots without a shard, "
        f"{health.under_replicated} replicas missing"
    )
    if health.uncovered:
        return failed(
            said,
            "Milvus answers for them, slowly: `homeward index status`, `homeward index scale`",
        )
    if silent or health.under_replicated:
        return warning(f"{said}; silent: {', '.join(silent) or 'none'}", "see `homeward index status`")
    return ok(said)


def _stale(row: FaceRow, now: FaceRow | None) -> bool:
    return now is not None and any(getattr(row, name) != getattr(now, name) for name in INTEGER_COLUMNS)


def _stored(parts: Parts, agency: str) -> Iterator[str]:
    after: str | None = None
    while page := parts.photos.list(agency, after):
        yield from page
        after = page[-1]

"""The parts that `doctor` looks at one by one; `cluster.mend` compares them with each other."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from catalogue.upgrade_types import Upgrade
from cluster.compose import Parts
from cluster.listen import is_loopback
from cluster.searchlog_verify import verify

_DISK_LOW = 2 << 30  # bytes

MEND = "run homeward doctor --mend"

Value = TypeVar("Value")


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


def ok(finding: str) -> Check:
    """Nothing to do."""
    return Check("", State.OK, finding)


def warning(finding: str, remedy: str) -> Check:
    """It works, but somebody should know."""
    return Check("", State.WARNING, finding, remedy)


def failed(finding: str, remedy: str) -> Check:
    """It does not work."""
    return Check("", State.FAILED, finding, remedy)


def mended(finding: str) -> Check:
    """It did not work, and does now."""
    return Check("", State.MENDED, finding)


async def run(parts: Parts, call: Callable[..., Value], *arguments: object) -> Value:
    """Call a store without holding the event loop."""
    return await asyncio.get_running_loop().run_in_executor(parts.blocking, call, *arguments)


async def check_disk(parts: Parts, _: bool) -> Check:
    """Room for writes."""
    usage = shutil.disk_usage(parts.settings.data_dir)
    free = f"{usage.free / 2**30:.1f} GiB free in {parts.settings.data_dir}"
    if usage.free < _DISK_LOW:
        return warning(free, "make room: writes and searches stop when it is full")
    return ok(free)


async def check_server(parts: Parts, _: bool) -> Check:
    """Who can reach the server, and how."""
    settings = parts.settings.server
    if settings.tls_certificate is None:
        if is_loopback(settings.address):
            return ok(f"{settings.address}, reachable from this machine alone, without TLS")
        return failed(f"{settings.address} without TLS", "set server.tls_certificate and server.tls_key")
    if settings.tls_client_ca is None:
        return warning(
            f"{settings.address} with TLS, open to every client that reaches it",
            "set server.tls_client_ca, so that clients must show a certificate",
        )
    return ok(f"{settings.address} with TLS and client certificates")


async def check_model(parts: Parts, _: bool) -> Check:
    """Whether the catalogue's faces are of the model that runs, and whether scores are calibrated."""

    def models() -> tuple[Counter[str], Upgrade | None]:
        counts = Counter(face.model_id for face in parts.catalogue.all_faces())
        return counts, parts.catalogue.upgrades.latest()

    counts, upgrade = await run(parts, models)
    model = f"{parts.embedding.model_id} on {parts.embedding.device}"
    if upgrade is not None and not upgrade.ended:
        return warning(
            f"{model}; an upgrade from {upgrade.old.bundle} to {upgrade.new.bundle} is {upgrade.state}",
            "homeward models migrate status says what comes next",
        )
    others = sum(count for name, count in counts.items() if name != parts.embedding.model_id)
    if others:
        return warning(
            f"{model}; {others:,} faces were enrolled with another model and are not searched",
            "serve with the model they were enrolled with, and change it by homeward models migrate",
        )
    if parts.calibration is None:
        return warning(
            f"{model}; no calibration, so there is no log-likelihood ratio",
            "homeward models calibrate --pairs DIR, with photos like yours",
        )
    return ok(f"{model}; calibrated on {parts.calibration.dataset}")


async def check_catalogue(parts: Parts, _: bool) -> Check:
    """That it answers, and how much it holds."""
    counts = await run(parts, parts.catalogue.counts)
    return ok(
        f"{counts.records:,} records ({counts.searchable:,} searchable), {counts.photos:,} photos, "
        f"{counts.faces:,} faces, {counts.tombstones:,} deleted, rev {counts.rev}"
    )


async def check_deletions(parts: Parts, mend: bool) -> Check:
    """What deletions left to be removed."""
    if mend:
        await run(parts, parts.eraser.sweep)
    left = len(await run(parts, parts.catalogue.pending_erasures))
    if left:
        return warning(f"{left} rows and photos wait to be removed", MEND)
    return ok("nothing waits to be removed")


async def check_search_log(parts: Parts, _: bool) -> Check:
    """That it can be written, and that nobody changed it."""
    folder = parts.settings.data_dir / "search-log"
    if not os.access(folder, os.W_OK | os.X_OK):
        return failed(
            f"{folder} cannot be written", "let this user write it: without it searches are refused"
        )
    report = await run(parts, verify, folder)
    return Check("", State.OK if report.complete else State.FAILED, report.finding, report.remedy)

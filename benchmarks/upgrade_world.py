"""Whom the upgrade benchmark enrols, the operator's commands, and what is left in the stores afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reporting import say
from benchmarks.served import environment
from benchmarks.stores import Stores
from benchmarks.upgrade_clients import Probe
from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from homeward.config import CatalogueSettings
from index.milvus import collection_name, connect

MEANWHILE = 12  # records that are enrolled, and as many that are deleted, in each direction
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class People:
    """Whom the benchmark enrols and searches for."""

    folder: Path
    gallery: tuple[tuple[str, Path], ...]
    probes: tuple[Probe, ...]
    others: tuple[tuple[str, Path], ...]  # to be enrolled meanwhile


def unpack(tar: Path, folder: Path, records: int) -> People:
    """First photos of people who have two, then of others; the second ones are probes."""
    with tarfile.open(tar) as archive:
        archive.extractall(folder, filter="data")
    photos = {person.name: sorted(person.iterdir()) for person in sorted(folder.iterdir()) if person.is_dir()}
    names = sorted(photos, key=lambda name: (len(photos[name]) < 2, name))
    enrolled, others = names[:records], names[records:]
    leavers = set(enrolled[-2 * MEANWHILE :])
    return People(
        folder=folder,
        gallery=tuple((name, photos[name][0]) for name in enrolled),
        probes=tuple(
            Probe(name, photos[name][1].read_bytes())
            for name in enrolled
            if len(photos[name]) > 1 and name not in leavers
        ),
        others=tuple((name, photos[name][0]) for name in others),
    )


class World:
    """The stores, the servers' addresses and the commands of an operator over them."""

    def __init__(self, stores: Stores, folder: Path, bundles: Path) -> None:
        self.stores = stores
        self.folder = folder
        self.settings = {"HOMEWARD_WORKERS__BUNDLES_DIR": str(bundles), "HOMEWARD_LOADS__WHERE": "here"}
        self.addresses: list[str] = []

    async def homeward(self, *words: str, kill_at: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Run a command; its exit code and last line. `kill_at`: kill -9 once so many photos are covered."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cluster.cli.main", "--json", *words),
            stdout=asyncio.subprocess.PIPE,
            env=environment(
                self.stores, {**self.settings, "HOMEWARD_DATA_DIR": str(self.folder / "operator")}
            ),
            start_new_session=True,
        )
        watch = None if kill_at is None else asyncio.create_task(self._kill(child, **kill_at))
        out, _ = await child.communicate()
        if watch is not None:
            watch.cancel()
        lines = [json.loads(line) for line in out.decode().splitlines() if line.startswith("{")]
        return child.returncode or 0, lines[-1] if lines else None

    async def must(self, *words: str) -> Any:
        """The last line of a command. Raises `RuntimeError` when it fails."""
        began = time.monotonic()
        code, said = await self.homeward(*words)
        if code not in (0, 6):
            raise RuntimeError(f"homeward {' '.join(words)} ended with {code}: {said}")
        say(f"homeward {' '.join(words[:4])}: {time.monotonic() - began:.0f} s")
        return said

    def catalogue(self) -> Catalogue:
        """The catalogue, to look at."""
        settings: CatalogueSettings = self.stores.catalogue
        return open_catalogue(settings, self.folder)

    async def _kill(self, child: asyncio.subprocess.Process, model: str, photos: int) -> None:
        with_model = self.catalogue()
        try:
            while child.returncode is None:
                left = await asyncio.to_thread(with_model.upgrades.count_uncovered, model)
                if with_model.upgrades.latest() and with_model.counts().photos - left >= photos:
                    os.killpg(child.pid, signal.SIGKILL)
                    return
                await asyncio.sleep(_POLL_S)
        finally:
            with_model.close()


def unaccounted(world: World, model: str, gone: Sequence[str]) -> dict[str, int]:
    """Records without a face of the model that are not listed either, as a loss or as not searchable; and
    deleted ones that have a row anywhere."""
    catalogue = world.catalogue()
    try:
        token, missing, records, listed = "", 0, 0, 0
        losses = {loss.record_id for loss in catalogue.upgrades.losses(model)}
        while True:
            page = catalogue.list_records(page_size=1000, token=token)
            for record in page.records:
                records += 1
                has = any(face.model_id == model for photo in record.photos for face in photo.faces)
                told = record.record_id in losses or not record.searchable
                listed += told and not has
                missing += not told and not has
            token = page.next_page_token
            if not token:
                break
        back = len(catalogue.get_many(gone)) + len(catalogue.faces_of(gone))
        return {"records": records, "listed": listed, "unaccounted": missing + back}
    finally:
        catalogue.close()


def rows_left(world: World, model: str) -> dict[str, int]:
    """What is left of a model after finish: faces in the catalogue, and its collection in Milvus."""
    catalogue = world.catalogue()
    try:
        faces = sum(face.model_id == model for face in catalogue.all_faces())
    finally:
        catalogue.close()
    connection = connect(world.stores.gallery, world.folder)
    try:
        name = collection_name(world.stores.gallery.collection, model)
        return {"faces": faces, "collections": int(connection.client.has_collection(name))}
    finally:
        connection.close()

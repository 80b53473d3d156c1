"""Embedding workers on a Ray cluster: Ray places and restarts them, photos do not travel through it.

A worker is a detached actor that serves `EmbeddingService` on a port of its own and has itself listed where
gRPC servers look. Neither they nor their callers need Ray's head once they run. Ray has no authentication
unless its token mode is on (`RAY_AUTH_MODE=token`): whoever reaches an open Ray port runs code on the
cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from homeward.config import Settings
from homeward.errors import HomewardError, InvalidInput, WorkerUnavailable
from homeward.observed import observed
from workers.cluster_size import Node, WorkerShare, share
from workers.open import open_embedding
from workers.placement import PlacedWorker, Placements
from workers.ray_session import NAMESPACE, actor_names, connected, find_actor
from workers.service import serving

PREFIX = "embedding-"
START_S = 300.0  # a worker imports torch, reads its model and, on a new node, waits for the machine
_CLOSE_S = 30.0
_AGAIN_S = 2.0
_STATUS_S = 10.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker as the cluster sees it."""

    name: str
    address: str  # empty when it does not answer
    model_id: str
    device: str
    process: int


class EmbeddingWorker:
    """The actor around one `LocalEmbedding`. Ray runs `__init__` again when it restarts the actor, at
    another port perhaps, so that is where it begins to serve and has itself listed."""

    def __init__(self, name: str, settings: Settings, placements: Placements, host: str | None) -> None:
        self._settings = settings
        self._placements = placements
        self._host = host or str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._status = WorkerStatus(name, "", "", "", os.getpid())
        self._thread = threading.Thread(target=self._run, name="serve", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        self._have_listed()

    def status(self) -> WorkerStatus:
        """Where it listens and what it runs."""
        return self._status

    def close(self) -> None:
        """Finish what was accepted and stop listening."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._failure = error
            if self._ready.is_set():
                _logger.exception("the embedding service ended")
                os._exit(1)  # Ray starts it anew
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        with observed(self._settings, self._status.name):
            await self._serve_embedding()

    async def _serve_embedding(self) -> None:
        embedding = await open_embedding(self._settings)
        workers = self._settings.workers
        try:
            async with serving(
                embedding,
                f"{self._host}:{workers.ports or 0}",
                workers.token,
                max_photo_bytes=workers.max_photo_bytes,
            ) as address:
                self._status = WorkerStatus(
                    self._status.name, address, embedding.model_id, embedding.device, os.getpid()
                )
                self._dimension = embedding.dimension
                self._ready.set()
                await self._stop.wait()
        finally:
            await embedding.close()

    def _have_listed(self) -> None:
        """Ray never starts an actor again whose constructor raised: a restarted one waits for the store."""
        now = self._status
        placed = PlacedWorker(now.name, now.address, now.model_id, self._dimension)
        while True:
            try:
                return self._placements.place(placed)
            except HomewardError as error:
                if not ray.get_runtime_context().was_current_actor_reconstructed:
                    raise
                _logger.warning("%s at %s is not listed yet: %s", now.name, now.address, error.message)
            time.sleep(_AGAIN_S)


def start_workers(
    count: int, settings: Settings, placements: Placements, ray_address: str = "auto"
) -> list[str]:
    """Start workers until there are `count` (0: as many as the cluster carries) and return all addresses.

    Each has itself listed in `placements`. Workers that run already keep running as they are. Raises
    `WorkerUnavailable` without a cluster or room on it, `InvalidInput` for several machines without a token
    (TOKEN_REQUIRED) or with a catalogue that lies on this one (CATALOGUE_NOT_SHARED), and what `open_model`
    and `placements` raise.
    """
    with connected(ray_address):
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        each = share(
            [Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes], count
        )
        several = len({node["NodeManagerAddress"] for node in nodes}) > 1
        if several and settings.workers.token is None:
            raise InvalidInput(
                "workers on several machines need a token: set HOMEWARD_WORKERS__TOKEN, the same here and "
                "for the servers",
                code="TOKEN_REQUIRED",
                field="workers.token",
            )
        if several and not settings.catalogue.uri:
            raise InvalidInput(
                "workers on several machines list themselves in the catalogue, and this one lies on this "
                "machine: set catalogue.uri (HOMEWARD_CATALOGUE__URI), the same for the servers",
                code="CATALOGUE_NOT_SHARED",
                field="catalogue.uri",
            )
        loopback = not several and settings.workers.token is None
        actors = [
            _start(f"{PREFIX}{number}", settings, placements, each, "127.0.0.1" if loopback else None)
            for number in range(each.count)
        ]
        return _addresses(actors)


def stop_workers(placements: Placements, ray_address: str = "auto") -> int:
    """List no worker any more, let those that run finish, end them; returns how many ran."""
    with connected(ray_address):
        names = actor_names(PREFIX)
        for name in {*names, *(worker.name for worker in placements.read())}:
            placements.remove(name)
        for name in names:
            actor = find_actor(name)
            if actor is None:
                continue
            try:
                ray.get(actor.close.remote(), timeout=_CLOSE_S)
            except RayError as error:
                _logger.warning("%s did not end by itself: %s", name, type(error).__name__)
            ray.kill(actor, no_restart=True)
            placements.remove(name)  # one that was started again meanwhile has listed itself anew
        return len(names)


def worker_status(ray_address: str = "auto") -> list[WorkerStatus]:
    """What every worker says of itself; one that does not answer has no address."""
    with connected(ray_address):
        return [_status(name) for name in actor_names(PREFIX)]


def _status(name: str) -> WorkerStatus:
    actor = find_actor(name)
    if actor is not None:
        with contextlib.suppress(RayError):
            answer: WorkerStatus = ray.get(actor.status.remote(), timeout=_STATUS_S)
            return answer
    return WorkerStatus(name, "", "", "", 0)


def _start(name: str, settings: Settings, placements: Placements, each: WorkerShare, host: str | None) -> Any:
    workers = settings.workers.model_copy(
        update={
            "addresses": (),
            "where": "server",
            "threads": settings.workers.threads or each.cores,
            "decode_processes": settings.workers.decode_processes or each.cores,
        }
    )
    return (
        ray.remote(EmbeddingWorker)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=each.reserved_cpus,
            num_gpus=each.gpus,
            max_restarts=-1,
            max_task_retries=-1,
        )
        .remote(
            name,
            settings.model_copy(update={"workers": workers}),
            placements,
            host,
        )
    )


def _addresses(actors: list[Any]) -> list[str]:
    try:
        return [status.address for status in ray.get([a.status.remote() for a in actors], timeout=START_S)]
    except GetTimeoutError as error:
        raise WorkerUnavailable(
            f"not all workers started within {START_S:g} s: see `ray status` for what the cluster lacks"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, HomewardError):
            raise error.cause from error
        raise WorkerUnavailable(f"a worker failed to start: {error.cause!r}") from error
    except RayActorError as error:
        raise WorkerUnavailable(f"a worker failed to start: {error}") from error

"""Embedding workers on a Ray cluster: Ray places and restarts them, photos do not travel through it.

A worker is a detached actor that serves `EmbeddingService` on a port of its own; one more actor
keeps the placement document that gRPC servers read. Neither they nor their callers need Ray's head
once they run. Ray has no authentication unless its token mode is on (`RAY_AUTH_MODE=token`): whoever
reaches an open Ray port runs code on the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from homeward.config import Settings
from homeward.errors import Corrupt, HomewardError, InvalidInput, NotFound, WorkerUnavailable
from workers.cluster_size import Node, WorkerShare, share
from workers.open import open_embedding
from workers.placement import PlacedWorker, Placement, read_placement, write_placement
from workers.ray_session import NAMESPACE, actor_names, connected, find_actor
from workers.service import serving

PREFIX = "embedding-"
KEEPER = "placement"
START_S = 300.0  # a worker imports torch, reads its model and, on a new node, waits for the machine
_PLACE_S = 30.0
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


class PlacementKeeper:
    """The actor that writes the placement document. Its state is the document."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def place(self, worker: PlacedWorker) -> None:
        """List the worker, in the place of the one of its name."""
        write_placement(self._path, self._read().with_worker(worker))

    def remove(self, name: str) -> None:
        """List the worker no more."""
        write_placement(self._path, self._read().without(name))

    def path(self) -> str:
        """Where the document is."""
        return str(self._path)

    def _read(self) -> Placement:
        try:
            return read_placement(self._path)
        except (NotFound, Corrupt):
            # Readers hold the epoch of a document that is gone: start above any it can have had.
            return Placement(int(time.time()), ())


class EmbeddingWorker:
    """The actor around one `LocalEmbedding`. Ray runs `__init__` again when it restarts the actor, at
    another port perhaps, so that is where it begins to serve and has itself listed."""

    def __init__(self, name: str, settings: Settings, host: str | None) -> None:
        self._settings = settings
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
        embedding = await open_embedding(self._settings)
        workers = self._settings.workers
        try:
            async with serving(
                embedding, f"{self._host}:0", workers.token, max_photo_bytes=workers.max_photo_bytes
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
        now = self._status
        placed = PlacedWorker(now.address, now.model_id, self._dimension, now.name)
        try:
            ray.get(ray.get_actor(KEEPER, NAMESPACE).place.remote(placed), timeout=_PLACE_S)
        except (RayError, ValueError) as error:  # it serves all the same, to whoever knows its address
            _logger.warning("%s at %s is not in the placement document: %s", now.name, now.address, error)


def start_workers(
    count: int, settings: Settings, ray_address: str = "auto", placement: Path | None = None
) -> list[str]:
    """Start workers until there are `count` (0: as many as the cluster carries) and return all addresses.

    The placement document is `placement`, or `settings.workers.placement`, or `workers.json` in the data
    folder, on this machine. Workers that run already keep running as they are. Raises
    `WorkerUnavailable` without a cluster or room on it, `InvalidInput` (TOKEN_REQUIRED) for several
    machines without a token, and what `open_model` raises.
    """
    document = (placement or settings.workers.placement or settings.data_dir / "workers.json").absolute()
    document.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with connected(ray_address):
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        each = share(
            [Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes], count
        )
        if len(nodes) > 1 and settings.workers.token is None:
            raise InvalidInput(
                "workers on several machines need a token: set HOMEWARD_WORKERS__TOKEN, the same here and "
                "for the servers",
                code="TOKEN_REQUIRED",
                field="workers.token",
            )
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        keeper: Any = (
            ray.remote(PlacementKeeper)
            .options(
                name=KEEPER,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_restarts=-1,
                max_task_retries=-1,
                scheduling_strategy=here,
            )
            .remote(str(document))
        )
        if ray.get(keeper.path.remote(), timeout=_PLACE_S) != str(document):
            raise InvalidInput(
                f"workers of this cluster are listed in {ray.get(keeper.path.remote())}; stop them first, "
                "or name that document",
                code="PLACEMENT_ELSEWHERE",
            )
        actors = [_start(f"{PREFIX}{number}", settings, each, len(nodes)) for number in range(each.count)]
        return _addresses(actors)


def stop_workers(ray_address: str = "auto") -> int:
    """Take all workers out of the placement document, let them finish, end them; returns how many."""
    with connected(ray_address):
        keeper = find_actor(KEEPER)
        names = actor_names(PREFIX)
        for name in names:
            actor = find_actor(name)
            if keeper is not None:
                ray.get(keeper.remove.remote(name), timeout=_PLACE_S)
            if actor is None:
                continue
            try:
                ray.get(actor.close.remote(), timeout=_PLACE_S)
            except RayError as error:
                _logger.warning("%s did not end by itself: %s", name, type(error).__name__)
            ray.kill(actor, no_restart=True)
        if keeper is not None:
            ray.kill(keeper, no_restart=True)
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


def _start(name: str, settings: Settings, each: WorkerShare, nodes: int) -> Any:
    loopback = nodes == 1 and settings.workers.token is None
    workers = settings.workers.model_copy(
        update={
            "addresses": (),
            "placement": None,
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
            "127.0.0.1" if loopback else None,
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

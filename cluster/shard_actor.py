"""Shards and their controller as detached Ray actors: Ray places them, probes travel past it.

A shard listens on a port of its own and enters itself in the catalogue; there the controller finds it.
Neither they nor the gRPC servers need Ray's head once they run.

Ray restarts an actor whose process ended, but never one whose constructor raised: an actor that is being
restarted waits for the stores instead. The actors' arguments, secrets of the settings with them, lie with
Ray's head, and in its Redis if it has one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from catalogue.open import open_catalogue
from cluster.shard_maps import ShardEntry, ShardMaps
from cluster.shard_process import IndexModel, controlling, serving_shard
from homeward.config import Settings
from homeward.errors import Conflict, HomewardError, InvalidInput, WorkerUnavailable
from homeward.log_lines import where
from index.shard_map import ShardMap
from workers.ray_session import NAMESPACE, actor_names, connected, find_actor

PREFIX = "shard-"
CONTROLLER = "shard-controller"
START_S = 300.0
_CALL_S = 30.0
_AGAIN_S = 2.0
_POLL_S = 0.1
_TRIES = 10
_ENDED = "it was killed by `ray.kill`"  # in Ray's words of an actor that is gone
_HEAD = "node:__internal_head__"  # a resource of the node on which Ray's head runs

_logger = logging.getLogger(__name__)


class _Service:
    """Runs an async context on a thread of its own for as long as the actor lives."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._opened = opened
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self.value: Any = None
        self._thread = threading.Thread(target=self._run, name="serve", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Leave the context."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - told by `ready`, or by the log and the exit
            self._failure = error
            if self._ready.is_set():
                _logger.error("the service ended: %s", where(error))  # noqa: TRY400 - its text may quote a request
                os._exit(1)  # Ray starts it anew
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        async with self._opened() as self.value:
            self._ready.set()
            await self._stop.wait()


def _service(opened: Callable[[], AbstractAsyncContextManager[Any]]) -> _Service:
    """Once it runs. What hinders an actor's first start is raised; a restarted one tries until it can."""
    while True:
        try:
            return _Service(opened)
        except Exception as error:
            if not ray.get_runtime_context().was_current_actor_reconstructed:
                raise
            said = error.message if isinstance(error, HomewardError) else where(error)
            _logger.warning("not started again yet, trying on: %s", said)
            time.sleep(_AGAIN_S)


class ShardActor:
    """The actor around one shard. Ray runs `__init__` again when it restarts it, perhaps on another node."""

    def __init__(self, name: str, settings: Settings, model: IndexModel, host: str | None) -> None:
        node = ray.get_runtime_context().get_node_id()
        here = host or str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        self._service = _service(lambda: serving_shard(settings, model, name, node, here))

    def entry(self) -> ShardEntry:
        """Where it listens."""
        found: ShardEntry = self._service.value
        return found

    def process(self) -> int:
        """Its process id."""
        return os.getpid()

    def close(self) -> None:
        """Finish what was accepted and stop listening."""
        self._service.close()


class ControlActor:
    """The actor around the controller."""

    def __init__(self, settings: Settings, model: IndexModel) -> None:
        self._service = _service(lambda: controlling(settings, model, _retire))

    def process(self) -> int:
        """Its process id."""
        return os.getpid()

    def close(self) -> None:
        """Stop."""
        self._service.close()


def scale_shards(count: int, settings: Settings, model: IndexModel, ray_address: str = "auto") -> list[str]:
    """Have `count` shards: start those that lack, let the last ones leave once others hold what they have.

    Returns the names of the shards that are to be. Raises `WorkerUnavailable` without a cluster or room on
    it, `InvalidInput` (TOKEN_REQUIRED) for several machines without a token.
    """
    names = [f"{PREFIX}{number}" for number in range(count)]
    with connected(ray_address):
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        hosts = {node["NodeManagerAddress"] for node in nodes}
        if len(hosts) > 1 and settings.index.token is None:
            raise InvalidInput(
                "shards on several machines need a token: set HOMEWARD_INDEX__TOKEN, the same here and for "
                "the servers",
                code="TOKEN_REQUIRED",
                field="index.token",
            )
        loopback = len(hosts) == 1 and settings.index.token is None
        with _maps(settings, model) as maps:
            for entry in maps.entries():
                maps.set_leaving(entry.name, entry.name not in names)
        heads = [node["NodeID"] for node in nodes if _HEAD in node["Resources"]]
        controller = _control(settings, model, heads)
        _start_all(names, settings, model, "127.0.0.1" if loopback else None)
        _wait_for(controller.process.remote(), time.monotonic() + START_S)
    return names


def stop_shards(settings: Settings, model: IndexModel, ray_address: str = "auto") -> int:
    """End all shards and the controller; how many shards. Milvus answers every search then, slowly."""
    with connected(ray_address):
        controller = find_actor(CONTROLLER)
        if controller is not None:
            ray.kill(controller, no_restart=True)
        shards = [name for name in actor_names(PREFIX) if name != CONTROLLER]
        for name in shards:
            _retire(name)
        with _maps(settings, model) as maps:
            for entry in maps.entries():
                maps.forget(entry.name)
            _clear(maps)
    return len(shards)


def shard_processes(ray_address: str = "auto") -> dict[str, int]:
    """Process ids of the shards and the controller that answer."""
    with connected(ray_address):
        found = {}
        for name in actor_names(PREFIX):
            actor = find_actor(name)
            try:
                found[name] = int(ray.get(actor.process.remote(), timeout=_CALL_S)) if actor else 0
            except RayError:
                continue
        return found


@contextmanager
def _maps(settings: Settings, model: IndexModel) -> Iterator[ShardMaps]:
    catalogue = open_catalogue(settings.catalogue, settings.data_dir)
    try:
        yield ShardMaps(catalogue, model.model_id)
    finally:
        catalogue.close()


def _clear(maps: ShardMaps) -> None:
    """Write a map without shards: servers would wait for those that are gone at every commit."""
    for _ in range(_TRIES):
        newest = maps.read()
        if newest is None or not newest.shards:
            return
        nowhere = ShardMap.empty(newest.model_id, newest.replicas)
        with suppress(Conflict):  # the controller had one more to write
            maps.write(replace(nowhere, epoch=newest.epoch + 1))


def _start_all(names: Sequence[str], settings: Settings, model: IndexModel, host: str | None) -> None:
    """Have these shards, and wait until all of them listen. One that was just leaving is started anew."""
    give_up = time.monotonic() + START_S
    while names:
        answers = {name: _start(name, settings, model, host).entry.remote() for name in names}
        names = [name for name, answer in answers.items() if not _wait_for(answer, give_up)]
        time.sleep(_POLL_S if names else 0.0)


def _start(name: str, settings: Settings, model: IndexModel, host: str | None) -> Any:
    return (
        ray.remote(ShardActor)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=settings.index.shard_cpus,
            num_gpus=settings.index.shard_gpus,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy="SPREAD",
        )
        .remote(name, settings, model, host)
    )


def _control(settings: Settings, model: IndexModel, heads: Sequence[str]) -> Any:
    """The controller runs beside the head only for want of other nodes: else both would be lost at once."""
    elsewhere = NodeLabelSchedulingStrategy({}, soft={"ray.io/node-id": NotIn(*heads)})  # type: ignore[no-untyped-call]
    return (
        ray.remote(ControlActor)
        .options(
            name=CONTROLLER,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=elsewhere,
        )
        .remote(settings, model)
    )


def _wait_for(answer: Any, give_up: float) -> bool:
    """Wait for an actor to answer; False when it was ended meanwhile. Raises why it did not start."""
    try:
        ray.get(answer, timeout=max(0.0, give_up - time.monotonic()))
    except GetTimeoutError as error:
        raise WorkerUnavailable(
            f"not all shards started within {START_S:g} s: see `ray status` for what the cluster lacks"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, HomewardError):
            raise error.cause from error
        raise WorkerUnavailable(f"a shard failed to start: {error.cause!r}") from error
    except RayActorError as error:
        said = str(error).strip()
        if _ENDED in said:
            return False
        raise WorkerUnavailable(f"a shard failed to start: {said.splitlines()[-1]}") from error
    return True


def _retire(name: str) -> None:
    actor = find_actor(name)
    if actor is None:
        return
    try:
        ray.get(actor.close.remote(), timeout=_CALL_S)
    except RayError as error:
        _logger.warning("%s did not end by itself: %s", name, type(error).__name__)
    ray.kill(actor, no_restart=True)

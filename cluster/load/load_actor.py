"""Loaders on a Ray cluster: Ray Data hands them the numbers of parts; photos do not travel through it.

Each actor reads, embeds, writes and commits its parts by itself, a few at a time. Ray starts an actor that
died anew, here or on another node, and gives it the part that it had. Ray has no authentication unless its
token mode is on (`RAY_AUTH_MODE=token`): whoever reaches an open Ray port runs code on the cluster.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import psutil
import ray
from ray.exceptions import RayError

from catalogue.load_types import Lease
from cluster.load.ahead import Ahead
from cluster.load.board import Board
from cluster.load.counters import Counters
from cluster.load.part_done import PARTS_AT_A_TIME, PartDone, failed
from cluster.load.patience import Patience
from cluster.load.spec import LoadSpec
from homeward.config import Settings
from homeward.errors import HomewardError, WorkerUnavailable
from homeward.memory import settled, uncollected
from homeward.observed import observed
from workers.cluster_size import Node, WorkerShare, cpu_loaders, share
from workers.ray_session import NAMESPACE, connected, keep_stdout

_TELL_S = 1.0
_ASK_S = 5.0
_BLOCKS_MAX = 4096  # what Ray Data hands out at a time: one part, of a load of more parts several

_logger = logging.getLogger(__name__)


class LoadPart:
    """The actor around one `Loader`: Ray Data calls it with one part's number at a time, in a few threads."""

    def __init__(self, settings: Settings, spec: LoadSpec, lease: Lease, board: Any) -> None:
        with uncollected():
            self._open(settings, spec, lease)
        if self._failure is not None:
            return
        self._stack.enter_context(settled())  # a full collection would hold up every thread of the model
        self._board = board
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        threading.Thread(target=self._keep_telling, name="tell", daemon=True).start()

    def _open(self, settings: Settings, spec: LoadSpec, lease: Lease) -> None:
        # The driver, which only names this class, has no need of torch and all stores' clients.
        from cluster.load.open_loader import open_loader

        self._stack = ExitStack()
        self._failure: HomewardError | None = None
        patience = Patience(settings.loads.patience_s, lambda _: nullcontext())
        try:
            self._stack.enter_context(observed(settings, f"loader-{os.getpid()}"))
            self._loader = patience.do(lambda: self._stack.enter_context(open_loader(settings, spec, lease)))
        except HomewardError as error:
            self._failure = error  # answered for each part: Ray would start this actor again and again

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Load one part."""
        part = int(batch["part"][0])
        if self._failure is None:
            done = self._loader.load(part)
            self._tell()  # the driver, which may end with this part, counts it too
        else:
            done = failed(part, self._failure)
        return {
            "part": np.array([done.part]),
            "photos": np.array([done.photos]),
            "kind": np.array([done.kind], dtype=object),
            "code": np.array([done.code], dtype=object),
            "message": np.array([done.message], dtype=object),
        }

    def _keep_telling(self) -> None:
        while True:
            self._tell()
            time.sleep(_TELL_S)

    def _tell(self) -> None:
        try:
            if ray.get(self._board.tell.remote(self._name, self._loader.counters()), timeout=_ASK_S):
                self._loader.stop()
        except RayError as error:
            _logger.info("the load's board does not answer: %s", type(error).__name__)


class RunOnRay:
    """`Runner` over a cluster that this process has joined as a driver."""

    def __init__(self, settings: Settings, spec: LoadSpec, lease: Lease, each: WorkerShare) -> None:
        self._settings = settings
        self._spec = spec
        self._lease = lease
        self._each = each
        self._board: Any = ray.remote(Board).options(num_cpus=0, max_restarts=-1).remote()
        self._counters = Counters(workers=0)
        self._stopping = False

    def run(self, parts: Sequence[int]) -> Iterator[PartDone]:
        """See `Runner`."""
        if not parts:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # the load has a display of its own
        rows = ray.data.from_items(
            [{"part": part} for part in parts], override_num_blocks=min(len(parts), _BLOCKS_MAX)
        )
        done = rows.map_batches(
            LoadPart,
            fn_constructor_args=(self._settings, self._spec, self._lease, self._board),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                size=min(self._each.count, len(parts)),
                max_tasks_in_flight_per_actor=2 * PARTS_AT_A_TIME,
                max_concurrent_calls_per_actor=PARTS_AT_A_TIME,
                enable_true_multi_threading=True,
            ),
            num_cpus=self._each.reserved_cpus,
            num_gpus=self._each.gpus or None,
        )
        try:
            for row in done.iter_rows():
                said = (str(row[name]) for name in ("kind", "code", "message"))
                yield PartDone(int(row["part"]), int(row["photos"]), *said)
                if self._stopping:
                    return
        except RayError as error:
            raise WorkerUnavailable(
                f"the cluster lost the loaders ({type(error).__name__}): see `ray status`, then resume"
            ) from error

    def counters(self) -> Counters:
        """See `Runner`."""
        try:
            self._counters = ray.get(self._board.read.remote(), timeout=_ASK_S)
        except RayError as error:
            _logger.info("the load's board does not answer: %s", type(error).__name__)
        return self._counters

    def stop(self) -> None:
        """See `Runner`."""
        self._stopping = True
        self._board.stop.remote()


class RayRunners(Ahead[WorkerShare]):
    """`Runners` over the cluster of `loads.ray`, or one that is started here and ends with the context."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(lambda: _joined(settings))
        self._settings = settings

    def prepare(self) -> None:
        """See `Runners`."""
        self.begin()

    @contextmanager
    def open(self, spec: LoadSpec, lease: Lease) -> Iterator[RunOnRay]:
        """See `Runners`."""
        self.begin()
        with uncollected():
            importlib.import_module("ray.data")  # takes as long as the cluster yet does
        each = self.get()
        workers = self._settings.workers.model_copy(
            update={
                "addresses": (),
                "where": "server",
                "threads": self._settings.workers.threads or each.cores,
                "decode_processes": self._settings.workers.decode_processes or each.cores,
            }
        )
        yield RunOnRay(self._settings.model_copy(update={"workers": workers}), spec, lease, each)


@contextmanager
def _joined(settings: Settings) -> Iterator[WorkerShare]:
    """In another thread than the main one, whose handler of SIGTERM Ray would replace by its own."""
    logging.getLogger("ray._private.worker").addFilter(_not_of_signals)
    with _own(settings) if not settings.loads.ray else connected(settings.loads.ray):
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        nodes = [Node(node.get("CPU", 0), node.get("GPU", 0), node.get("memory", 0)) for node in alive]
        left = ray.available_resources()  # type: ignore[no-untyped-call]
        free = max(1, int(left.get("CPU", 0)))  # of what shards and workers have not reserved
        yield share(nodes, settings.loads.actors or min(cpu_loaders(nodes), free))


def _not_of_signals(record: logging.LogRecord) -> bool:
    """Ray warns that it left the handler alone, as it should."""
    return "SIGTERM handler is not set" not in record.getMessage()


@contextmanager
def _own(settings: Settings) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    keep_stdout()
    try:
        ray.init(
            address="local",
            namespace=NAMESPACE,
            object_store_memory=settings.loads.object_store_bytes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _node_ip_address="127.0.0.1",
        )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise WorkerUnavailable(
            f"Ray did not start on this machine: {error}", code="RAY_UNREACHABLE"
        ) from error
    try:
        yield
    finally:
        _end_autoscaler()
        ray.shutdown()


def _end_autoscaler() -> None:
    """Of one machine nothing is scaled, but Ray asks this process to end and gives it a second that it never
    takes less of."""
    with suppress(psutil.Error):
        for child in psutil.Process().children():
            if any("autoscaler" in word and word.endswith("monitor.py") for word in child.cmdline()):
                child.kill()

"""How many embedding workers a cluster carries, and what each of them takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from homeward.errors import InvalidInput

_LOADER_BYTES = 2 << 30  # the model's 0.8 GB, and the parts that a loader has under way


@dataclass(frozen=True, slots=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float
    memory_bytes: float = math.inf


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """What one of `count` workers gets. `reserved_cpus` is what the scheduler keeps for it: half of the
    cores it uses, because decoding and the model seldom both use all of theirs, and loads run beside."""

    count: int
    cores: int  # torch threads and decoder children, each
    reserved_cpus: int
    gpus: float


def share(nodes: Sequence[Node], count: int = 0) -> WorkerShare:
    """Divide the cluster by `count` workers; 0: one per GPU, or one per machine without any.

    Raises `InvalidInput` (TOO_MANY_WORKERS) for more workers than cores.
    """
    gpus = sum(int(node.gpus) for node in nodes)
    # A head that offers no cores, as is usual on Kubernetes, carries none.
    hosts = [node for node in nodes if node.cpus >= 1 and (node.gpus >= 1 or not gpus)]
    cpus = int(sum(node.cpus for node in hosts))
    wanted = count or gpus or max(1, len(hosts))
    if wanted > cpus:
        raise InvalidInput(
            f"{wanted} workers need as many cores, and the cluster has {cpus}; start fewer with --count",
            code="TOO_MANY_WORKERS",
            field="count",
        )
    # No worker spans machines.
    cores = max(1, min(cpus // wanted, *(int(node.cpus) for node in hosts)))
    # Of workers that share a GPU whole ones fit, whatever fraction each is promised.
    per_worker = 1 / math.ceil(wanted / gpus) if gpus else 0.0
    return WorkerShare(wanted, cores, max(1, cores // 2), per_worker)


def cpu_loaders(nodes: Sequence[Node]) -> int:
    """How many loaders a cluster without GPUs carries: one per core, as far as its machines have the memory.

    Batches side by side in one process wait for Python's lock, the longer the more there are: on two cores
    two loaders of one batch each got through a sixth more photos than one of two (`benchmarks.load`, and with
    HOMEWARD_LOADS__ACTORS=1). 0 where there is a GPU, which one process keeps busy.
    """
    if any(node.gpus >= 1 for node in nodes):
        return 0
    return sum(
        max(1, int(min(node.cpus, node.memory_bytes // _LOADER_BYTES))) for node in nodes if node.cpus >= 1
    )

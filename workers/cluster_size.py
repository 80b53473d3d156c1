"""How many embedding workers a cluster carries, and what each of them takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeward.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float


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
    per_worker = min(1.0, gpus / wanted) if gpus else 0.0
    if 0.5 < per_worker < 1:  # two of these do not fit one GPU
        per_worker = 0.5
    return WorkerShare(wanted, cores, max(1, cores // 2), per_worker)

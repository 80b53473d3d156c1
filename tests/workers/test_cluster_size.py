"""What each worker of a cluster gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.errors import InvalidInput
from workers.cluster_size import Node, cpu_loaders, share

NODES = st.lists(
    st.builds(Node, st.integers(1, 64).map(float), st.integers(0, 8).map(float)), min_size=1, max_size=8
)


@given(nodes=NODES, count=st.integers(0, 32))
def test_a_cluster_is_never_promised_twice(nodes: list[Node], count: int) -> None:
    if max(count, 1) > sum(node.cpus for node in nodes):
        with pytest.raises(InvalidInput):
            share(nodes, count)
        return
    try:
        each = share(nodes, count)
    except InvalidInput:  # fewer cores on the machines with GPUs
        return
    assert each.count == (count or each.count)
    assert each.count * each.reserved_cpus <= sum(node.cpus for node in nodes)
    assert sum(int(node.gpus) * _on_one_gpu(each.gpus) for node in nodes) >= each.count * bool(each.gpus)
    assert 1 <= each.reserved_cpus <= each.cores <= max(node.cpus for node in nodes)


def _on_one_gpu(fraction: float) -> int:
    """Workers of such a fraction that fit one GPU."""
    return int(1 / fraction) if fraction else 0


def test_there_is_one_worker_per_gpu_else_per_machine() -> None:
    assert share([Node(16, 2), Node(16, 2), Node(64, 0)]).count == 4
    assert share([Node(16, 2), Node(16, 2), Node(64, 0)]).cores == 8
    assert share([Node(2, 0), Node(4, 0)]).count == 2
    assert share([Node(16, 1)], 4).gpus == 0.25
    assert share([Node(2, 0)]).reserved_cpus == 1


def test_a_head_that_offers_no_cores_is_no_machine_to_work_on() -> None:
    assert share([Node(0, 0), Node(8, 0), Node(8, 0)]) == share([Node(8, 0), Node(8, 0)])
    with pytest.raises(InvalidInput) as refused:
        share([Node(0, 0)])
    assert refused.value.code == "TOO_MANY_WORKERS"


GIB = 1 << 30


def test_a_load_has_a_loader_per_core_where_memory_suffices() -> None:
    assert cpu_loaders([Node(2, 0, 16 * GIB)]) == 2
    assert cpu_loaders([Node(0, 0, 4 * GIB), Node(16, 0, 8 * GIB), Node(4, 0, 64 * GIB)]) == 8
    assert cpu_loaders([Node(4, 0, GIB)]) == 1
    assert cpu_loaders([Node(64, 0, 64 * GIB), Node(16, 2, 64 * GIB)]) == 0
    assert cpu_loaders([]) == 0


@given(cpus=st.lists(st.integers(1, 64).map(float), min_size=1, max_size=8))
def test_loaders_of_cores_always_find_their_share(cpus: list[float]) -> None:
    nodes = [Node(cores, 0) for cores in cpus]
    each = share(nodes, cpu_loaders(nodes))
    assert (each.count, each.cores, each.reserved_cpus, each.gpus) == (sum(cpus), 1, 1, 0)

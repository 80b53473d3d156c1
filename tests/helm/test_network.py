"""Default-deny and the few flows that are opened: checked flow by flow, on what the policies say together."""

from __future__ import annotations

import pytest

from tests.helm.chart import Rendered
from tests.helm.reach import Labels, allowed, may_call
from tests.helm.sites import SITES, WITH_RAY, site

GUARDED = [name for name in SITES if name != "national, no policies"]
STRANGER = {"app": "stranger"}
ELSEWHERE = {"kubernetes.io/metadata.name": "elsewhere"}
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}
RAY_PORTS = (6379, 6380, 6383, 8080, 8265, 8266, 10001, 10002, 19999)
SHARD_PORTS = (20000, 20050, 20099)


def labels(found: Rendered, component: str) -> Labels:
    """Labels of the pods of a component; Ray's as KubeRay leaves them."""
    own: dict[str, str] = next(
        pod["metadata"]["labels"]
        for _, pod in found.pods()
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )
    changed = (
        {"app.kubernetes.io/name": "kuberay", "ray.io/node-type": "worker"} if component == "ray" else {}
    )
    return own | changed


@pytest.mark.parametrize("name", GUARDED)
def test_every_pod_is_behind_a_policy_that_denies(name: str) -> None:
    found = site(name)
    deny = found.one("NetworkPolicy", "-deny")["spec"]
    assert sorted(deny["policyTypes"]) == ["Egress", "Ingress"]
    assert "ingress" not in deny
    assert "egress" not in deny
    for where, pod in found.pods():
        assert deny["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items(), where


@pytest.mark.parametrize("name", GUARDED)
def test_a_stranger_reaches_nothing(name: str) -> None:
    found = site(name)
    for _, pod in found.pods():
        for port in (7443, 7444, 9464, *RAY_PORTS, *SHARD_PORTS):
            assert not allowed(found, pod["metadata"]["labels"], port, STRANGER)
            assert not allowed(found, pod["metadata"]["labels"], port, STRANGER, ELSEWHERE)


@pytest.mark.parametrize("name", [name for name in GUARDED if name in WITH_RAY])
def test_of_ray_only_the_dashboard_is_open_to_the_operator_outside_and_to_nobody_else(name: str) -> None:
    found = site(name)
    ray = labels(found, "ray")
    kuberay = {"kubernetes.io/metadata.name": "kuberay"}
    for port in (*RAY_PORTS, *SHARD_PORTS):
        for peer in (STRANGER, OPERATOR, ray, labels(found, "server")):
            assert not allowed(found, ray, port, peer, ELSEWHERE)
        is_named = "operatorNamespace" in SITES[name][1].get("networkPolicy", {})
        assert allowed(found, ray, port, OPERATOR, kuberay) == (port == 8265 and is_named)


def test_servers_reach_the_shards_and_nothing_else_of_ray() -> None:
    found = site("national")
    server, ray = labels(found, "server"), labels(found, "ray")
    for port in SHARD_PORTS:
        assert allowed(found, ray, port, server)
        assert may_call(found, server, port, ray)
    for port in RAY_PORTS:
        assert not allowed(found, ray, port, server)
        assert not may_call(found, server, port, ray)


def test_with_the_index_in_servers_they_reach_nothing_of_ray() -> None:
    found = site("one GPU server")
    for port in (*RAY_PORTS, *SHARD_PORTS):
        assert not allowed(found, labels(found, "ray"), port, labels(found, "server"))


def test_rays_pods_reach_each_other_at_any_port() -> None:
    found = site("national")
    ray = labels(found, "ray")
    for port in (*RAY_PORTS, *SHARD_PORTS):
        assert allowed(found, ray, port, ray)
        assert may_call(found, ray, port, ray)


def test_clients_are_those_that_are_named() -> None:
    found = site("national")
    server = labels(found, "server")
    assert allowed(found, server, 7443, STRANGER, {"team": "cases"})
    assert not allowed(found, server, 9464, STRANGER, {"team": "cases"})
    assert not allowed(found, server, 7443, {"homeward-client": "true"}), "the default gives way"
    assert allowed(found, server, 9464, STRANGER, {"team": "monitoring"})
    assert not allowed(found, server, 7443, STRANGER, {"team": "monitoring"})
    assert allowed(found, labels(found, "ray"), 9464, STRANGER, {"team": "monitoring"})
    assert not allowed(found, labels(found, "ray"), 9464, STRANGER, {"team": "cases"})
    assert allowed(found, server, 7443, labels(found, "test"))
    assert allowed(site("stores, one server"), server, 7443, {"homeward-client": "true"})
    assert not allowed(site("stores, one server"), server, 7443, {"homeward-client": "true"}, ELSEWHERE)


def test_servers_call_the_stores_at_the_ports_of_their_uris_and_nobody_else() -> None:
    found = site("national")
    server = labels(found, "server")
    assert all(may_call(found, server, port, None) for port in (5433, 19530, 9000))
    assert not any(may_call(found, server, port, None) for port in (22, 80, 443, 5432, 6380, 6443, 9443))


def test_addresses_of_the_stores_narrow_what_is_called() -> None:
    found = site("everything else")
    for policy in found.kind("NetworkPolicy"):
        for rule in policy["spec"].get("egress") or []:
            ports = {port["port"] for port in rule.get("ports", ())}
            if ports & {5433, 19530, 9000}:
                assert rule["to"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]


def test_ray_calls_the_stores_redis_and_the_archives_that_loads_name() -> None:
    found = site("national")
    ray = labels(found, "ray")
    assert all(may_call(found, ray, port, None) for port in (5433, 19530, 9000, 6380, 9443, 443))
    assert not any(may_call(found, ray, port, None) for port in (22, 80, 6443))


def test_the_head_alone_calls_the_kubernetes_api_and_only_to_scale() -> None:
    found = site("national")
    head = {**labels(found, "ray"), "ray.io/node-type": "head"}
    assert may_call(found, head, 6443, None)
    assert not may_call(found, labels(found, "ray"), 6443, None)
    assert not site("national, fixed size").has("NetworkPolicy", "-ray-autoscaler")


def test_embedded_servers_call_nobody() -> None:
    found = site("defaults")
    server = labels(found, "server")
    assert not any(may_call(found, server, port, None) for port in (80, 443, 5432, 6443, 9000, 19530))

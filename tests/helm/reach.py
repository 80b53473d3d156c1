"""Who may connect to whom by the NetworkPolicies of a release, judged as Kubernetes judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.helm.chart import NAMESPACE, Rendered

Labels = Mapping[str, str]
Rule = Mapping[str, Any]
_OWN = {"kubernetes.io/metadata.name": NAMESPACE}


def allowed(found: Rendered, pod: Labels, port: int, peer: Labels, namespace: Labels | None = None) -> bool:
    """Whether a peer in a namespace (None: the release's own) may connect to a pod's TCP port."""
    return _any_rule(_rules(found, pod, "ingress"), "from", port, peer, namespace)


def may_call(found: Rendered, pod: Labels, port: int, peer: Labels | None) -> bool:
    """Whether a pod may connect to a peer in its namespace, or (None) to any address outside the cluster."""
    return _any_rule(_rules(found, pod, "egress"), "to", port, peer, None)


def _rules(found: Rendered, pod: Labels, direction: str) -> list[Rule]:
    policies = [
        one["spec"]
        for one in found.kind("NetworkPolicy")
        if one["spec"]["podSelector"]["matchLabels"].items() <= pod.items()
        and direction.capitalize() in one["spec"]["policyTypes"]
    ]
    assert policies, f"no policy covers {dict(pod)}: everything would be allowed"
    return [rule for policy in policies for rule in policy.get(direction) or []]


def _any_rule(
    rules: Sequence[Rule], side: str, port: int, peer: Labels | None, namespace: Labels | None
) -> bool:
    return any(_port(rule, port) and _peer(rule.get(side), peer, namespace) for rule in rules)


def _port(rule: Rule, port: int) -> bool:
    ports = rule.get("ports")
    if not ports:
        return True
    return any(
        one.get("protocol", "TCP") == "TCP" and one["port"] <= port <= one.get("endPort", one["port"])
        for one in ports
    )


def _peer(peers: Sequence[Rule] | None, peer: Labels | None, namespace: Labels | None) -> bool:
    if not peers:
        return True
    if peer is None:
        return any("ipBlock" in one for one in peers)
    return any(
        _selects(one.get("podSelector"), peer, default=True)
        and (
            _selects(one["namespaceSelector"], namespace or _OWN, default=False)
            if "namespaceSelector" in one
            else namespace is None
        )
        for one in peers
        if "ipBlock" not in one
    )


def _selects(selector: Rule | None, labels: Labels, *, default: bool) -> bool:
    if selector is None:
        return default
    return bool(selector.get("matchLabels", {}).items() <= labels.items())

"""What every pod of every site has: limits, a read-only root, no token, mounts that resolve, probes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helm.chart import OTHER, RELEASE, render
from tests.helm.sites import SITES, TLS, site

every_site = pytest.mark.parametrize("name", SITES)
_SECRET_WORDS = re.compile(r"(?i)password|secret|token\b|private")


def containers(name: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Pod's name, pod's spec and container, of all containers of a site."""
    for where, pod in site(name).pods():
        for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
            yield where, pod["spec"], container


@every_site
def test_no_container_may_gain_rights_or_write_its_root(name: str) -> None:
    for where, pod, container in containers(name):
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"] is True, where
        assert own["allowPrivilegeEscalation"] is False, where
        assert own["capabilities"] == {"drop": ["ALL"]}, where
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["runAsUser"] > 10000, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not any(key in pod for key in ("hostNetwork", "hostPID", "hostIPC")), where
        assert not any("hostPath" in volume for volume in pod["volumes"]), where


@every_site
def test_no_pod_is_handed_a_token_of_the_kubernetes_api(name: str) -> None:
    found = site(name)
    accounts = {one["metadata"]["name"]: one for one in found.kind("ServiceAccount")}
    for where, pod in found.pods():
        assert pod["spec"]["automountServiceAccountToken"] is False, where
        assert accounts[pod["spec"]["serviceAccountName"]]["automountServiceAccountToken"] is False
        for container in pod["spec"]["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert "autoscaler-token" not in mounted, where
    for kind in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        assert not found.has(kind)


@every_site
def test_every_container_has_limits_and_asks_for_no_more(name: str) -> None:
    for where, _, container in containers(name):
        limits = container["resources"]["limits"]
        assert limits["cpu"], where
        assert limits["memory"], where


@every_site
def test_every_image_is_named_with_its_version(name: str) -> None:
    for where, _, container in containers(name):
        _, _, tag = container["image"].rpartition(":")
        assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+(-cuda)?", tag), (where, container["image"])
        has_gpus = "nvidia.com/gpu" in container["resources"]["limits"]
        assert tag.endswith("-cuda") == has_gpus, where


@every_site
def test_mounts_resolve_and_do_not_hide_each_other(name: str) -> None:
    for where, pod, container in containers(name):
        volumes = [volume["name"] for volume in pod["volumes"]]
        assert len(volumes) == len(set(volumes)), where
        mounts = container["volumeMounts"]
        assert {mount["name"] for mount in mounts} <= set(volumes), where
        paths = [mount["mountPath"] for mount in mounts]
        assert len(paths) == len(set(paths)), where
        assert "/tmp" in paths, where
    for where, pod in site(name).pods():
        used = {mount["name"] for one in pod["spec"]["containers"] for mount in one["volumeMounts"]}
        left = {volume["name"] for volume in pod["spec"]["volumes"]} - used
        assert left <= {"autoscaler-token", "autoscaler-tmp"}, where


@every_site
def test_what_pods_refer_to_is_made_here_or_named_by_the_operator(name: str) -> None:
    found = site(name)
    made = {(one["kind"], one["metadata"]["name"]) for one in found.documents}
    own = RELEASE, OTHER
    for where, pod in found.pods():
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume and volume["configMap"]["name"].startswith(own):
                assert ("ConfigMap", volume["configMap"]["name"]) in made, where
            claim = volume.get("persistentVolumeClaim", {}).get("claimName", "")
            if claim.startswith(own):
                assert ("PersistentVolumeClaim", claim) in made, where
            secret = volume.get("secret", {}).get("secretName", "")
            if secret.startswith(own):
                assert found.one("Certificate")["spec"]["secretName"] == secret
            assert secret or "secret" not in volume, where


@every_site
def test_secrets_come_from_secrets_alone(name: str) -> None:
    found = site(name)
    assert not found.has("Secret"), "the chart makes no Secret"
    for where, _, container in containers(name):
        names = [variable["name"] for variable in container["env"]]
        assert len(names) == len(set(names)), where
        for variable in container["env"]:
            if "valueFrom" not in variable:
                assert not _SECRET_WORDS.search(variable["name"]), (where, variable)
            elif "secretKeyRef" in variable["valueFrom"]:
                assert variable["valueFrom"]["secretKeyRef"]["name"], (where, variable)
    for document in found.kind("ConfigMap"):
        if document["metadata"]["name"].endswith("-test"):
            continue  # a program
        for line in str(document["data"]).splitlines():
            assert not _SECRET_WORDS.search(line), (document["metadata"]["name"], line)


@every_site
def test_selectors_select_what_the_release_makes(name: str) -> None:
    found = site(name)
    pods = [pod["metadata"]["labels"] for _, pod in found.pods()]

    def selects(labels: dict[str, str]) -> bool:
        return any(labels.items() <= one.items() for one in pods)

    for document in found.kind("Deployment") + found.kind("PodDisruptionBudget"):
        assert selects(document["spec"]["selector"]["matchLabels"])
    for document in found.kind("Service"):
        assert selects(document["spec"]["selector"])
    for document in found.kind("HorizontalPodAutoscaler"):
        assert found.one("Deployment")["metadata"]["name"] == document["spec"]["scaleTargetRef"]["name"]
        assert "replicas" not in found.one("Deployment")["spec"], "the autoscaler's number would be undone"
    for document in found.kind("ServiceMonitor"):
        wanted = document["spec"]["selector"]["matchLabels"].items()
        services = [one for one in found.kind("Service") if wanted <= one["metadata"]["labels"].items()]
        assert len(services) == 1
        ports = {port["name"] for port in services[0]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in document["spec"]["endpoints"]} <= ports
    for document in found.kind("PodMonitor"):
        assert selects(document["spec"]["selector"]["matchLabels"])


@every_site
def test_the_server_is_probed_and_ends_in_order(name: str) -> None:
    pod = site(name).one("Deployment")["spec"]["template"]["spec"]
    [server] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert len(set(ports.values())) == len(ports)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert server[probe]["grpc"]["port"] == ports["health"]
    assert "service" not in server["readinessProbe"]["grpc"], "ready is: every service answers"
    assert server["livenessProbe"]["grpc"]["service"] == server["startupProbe"]["grpc"]["service"]
    waits = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = re.search(r"drain_s = (\d+)", site(name).one("ConfigMap", "-server")["data"]["homeward.toml"])
    assert drain is not None
    assert pod["terminationGracePeriodSeconds"] > waits + int(drain[1])
    not_ready_s = server["readinessProbe"]["periodSeconds"]
    assert waits >= not_ready_s, "clients resolve the name again before the listener goes"


@pytest.mark.parametrize(("seconds", "failures"), [(1800, 360), (86400, 17280)])
def test_a_rollout_waits_for_stores_and_ten_minutes_of_loading(seconds: int, failures: int) -> None:
    spec = render(values={"server": {"startSeconds": seconds}}).one("Deployment")["spec"]
    [server] = spec["template"]["spec"]["containers"]
    probe = server["startupProbe"]
    assert (probe["failureThreshold"], probe["periodSeconds"]) == (failures, 5)
    assert spec["progressDeadlineSeconds"] == seconds + 600


def test_the_service_is_one_name_for_every_server() -> None:
    service = site("stores, one server").one("Service")
    assert service["spec"]["clusterIP"] == "None"
    assert [port["name"] for port in service["spec"]["ports"]] == ["grpc"], "metrics and health stay inside"


def test_without_a_certificate_nothing_leads_to_the_server() -> None:
    assert not TLS["server"]["tls"].get("certManager")
    for name in ("defaults", "stores, on loopback"):
        assert not site(name).has("Service")
        assert not site(name).has("Pod")


def test_servers_of_a_cluster_are_spread_and_not_all_taken_away_at_once() -> None:
    found = site("national")
    pod = found.one("Deployment")["spec"]["template"]["spec"]
    keys = {spread["topologyKey"] for spread in pod["topologySpreadConstraints"]}
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert found.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert found.one("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_embedded_stores_have_one_owner_and_outlive_the_release() -> None:
    found = site("defaults")
    assert found.one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    claim = found.one("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("name", ["national", "search log on a claim of the chart's"])
def test_the_log_of_searches_outlives_pods_each_in_a_folder_of_its_own(name: str) -> None:
    found = site(name)
    pod = found.one("Deployment")["spec"]["template"]["spec"]
    [mount] = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "search-log"]
    assert mount["mountPath"] == "/var/lib/homeward/search-log"
    assert mount["subPathExpr"] == "$(POD_NAME)"
    [volume] = [one for one in pod["volumes"] if one["name"] == "search-log"]
    assert volume["persistentVolumeClaim"]["claimName"]
    for claim in found.kind("PersistentVolumeClaim"):
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_another_configuration_makes_other_pods() -> None:
    def checksum(name: str) -> str:
        template = site(name).one("Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum("stores, one server") != checksum("everything else")

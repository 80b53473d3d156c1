"""What is published for clients, and the program that `helm test` runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.server import LIVE, SERVICES
from tests.helm.chart import CHART
from tests.helm.sites import site


def test_the_service_config_names_every_service_and_retries_what_was_not_done() -> None:
    published = site("national").one("ConfigMap", "-clients")["data"]
    config = json.loads(published["service-config.json"])
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    [method] = config["methodConfig"]
    assert {one["service"] for one in method["name"]} == set(SERVICES)
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert 2 <= method["retryPolicy"]["maxAttempts"] <= 5, "gRPC does not take more"
    services = [one["metadata"]["name"] for one in site("national").kind("Service")]
    assert services[0] == "finder"
    assert published["target"] == "dns:///finder.agency.svc:7443"


def test_probes_ask_for_what_the_server_says() -> None:
    [server] = site("national").one("Deployment")["spec"]["template"]["spec"]["containers"]
    assert server["livenessProbe"]["grpc"]["service"] == LIVE


def test_certificates_are_for_the_name_that_clients_use() -> None:
    found = site("national, cert-manager, clients' certificates")
    names = found.one("Certificate")["spec"]["dnsNames"]
    target = found.one("ConfigMap", "-clients")["data"]["target"]
    assert target.removeprefix("dns:///").removesuffix(":7443") in names
    assert "homeward.example" in names
    usages = found.one("Certificate")["spec"]["usages"]
    assert usages == [
        "server auth",
        "client auth",
    ]  # commands on the pod show it, where clients must show one


def test_the_tests_pod_sees_the_servers_certificate_and_not_its_key() -> None:
    found = site("national, cert-manager, clients' certificates")
    pod = found.one("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    [volume] = [one for one in pod["spec"]["volumes"] if one["name"] == "tls"]
    assert [item["key"] for item in volume["secret"]["items"]] == ["ca.crt"]


@pytest.mark.parametrize("case", ["well", "not found", "refused", "no photos"])
def test_helm_test_enrols_searches_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    record = "other" if case == "not found" else "0123"
    answers = {
        "status": {"version": "0.1.0"},
        "enrol": {"record": {"record_id": "0123"}},
        "search": {"lists": [{"candidates": [{"record_id": record}]}]},
        "delete": {"rev": "7"},
    }
    for verb, answer in answers.items():
        (tmp_path / verb).write_text(json.dumps(answer))
    program = tmp_path / "homeward"
    refused = '[ "$4" = enrol ] && { echo PHOTO_NO_FACE; exit 6; }' if case == "refused" else ""
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n{refused}\ncat {tmp_path}/$4\n')
    program.chmod(0o755)
    words = ["server:7443"] if case == "no photos" else ["server:7443", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(CHART / "files" / "check.py"), *words],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    said = [line.split()[3] for line in (tmp_path / "said").read_text().splitlines()]
    expected = {
        "well": ["status", "enrol", "search", "delete"],
        "not found": ["status", "enrol", "search", "delete"],
        "refused": ["status", "enrol"],
        "no photos": ["status"],
    }
    assert said == expected[case]
    assert (done.returncode == 0) == (case in ("well", "no photos")), done.stderr
    if case == "refused":
        assert "PHOTO_NO_FACE" in done.stderr

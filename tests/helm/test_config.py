"""What the chart renders is what Homeward reads: its own loader takes it, and takes it to mean that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from homeward.config import Settings
from tests.helm.chart import Document, merged, render
from tests.helm.sites import ONE, SITES, WITH_RAY, site
from tests.helm.test_network import SHARD_PORTS

TRUSTED = ("SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "PGSSLROOTCERT")


def loaded(
    document: Document, container: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """The settings as a container's process gets them: file and environment."""
    for variable in container["env"]:
        if variable["name"].startswith("HOMEWARD_"):
            monkeypatch.setenv(variable["name"], variable.get("value", "of a Secret"))
    file = folder / "homeward.toml"
    file.write_text(document["data"]["homeward.toml"])
    return Settings.load(file)


@pytest.mark.parametrize("name", SITES)
def test_servers_start_with_what_is_rendered(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = site(name)
    [container] = found.one("Deployment")["spec"]["template"]["spec"]["containers"]
    settings = loaded(found.one("ConfigMap", "-server"), container, tmp_path, monkeypatch)
    values = SITES[name][1]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert settings.server.address.endswith(f":{ports['grpc']}")
    assert settings.server.health_address.endswith(f":{ports['health']}")
    assert settings.server.metrics_address.endswith(f":{ports['metrics']}")
    assert (settings.telemetry.log_format, settings.telemetry.metrics_address) == ("json", "")
    assert settings.catalogue.uri == values.get("catalogue", {}).get("uri", "")
    assert settings.workers.threads == settings.index.threads == settings.workers.decode_processes
    assert 1 <= settings.index.threads <= 8
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    if settings.server.tls_certificate is None:
        assert settings.server.address.startswith("127.0.0.1:")
    else:
        assert str(settings.server.tls_certificate.parent) in mounted
        assert settings.server.tls_key == settings.server.tls_certificate.with_name("tls.key")
    if settings.server.tls_client_ca is not None:
        assert str(settings.server.tls_client_ca.parent) in mounted
    assert str(settings.data_dir) in mounted
    has_secrets = bool(settings.catalogue.uri)
    secrets = settings.catalogue.password, settings.photos.access_key, settings.photos.secret_key
    assert all(bool(secret) == has_secrets for secret in secrets)
    assert bool(settings.index.token) == (settings.index.where == "shards")


@pytest.mark.parametrize("name", WITH_RAY)
def test_jobs_start_with_what_is_rendered_for_the_head(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = site(name)
    spec = found.one("RayCluster")["spec"]
    [head] = spec["headGroupSpec"]["template"]["spec"]["containers"]
    ray = loaded(found.one("ConfigMap", "-ray"), head, tmp_path, monkeypatch)
    [container] = found.one("Deployment")["spec"]["template"]["spec"]["containers"]
    server = loaded(found.one("ConfigMap", "-server"), container, tmp_path, monkeypatch)
    assert (ray.loads.where, ray.loads.ray) == ("ray", "auto")
    assert ray.workers.threads == 0, "Ray's workers share their machine's cores among them"
    for section in ("catalogue", "photos", "gallery"):
        assert getattr(ray, section) == getattr(server, section)
    same = {"threads"}
    assert ray.index.model_dump(exclude=same) == server.index.model_dump(exclude=same)
    workers = [group["template"]["spec"]["containers"][0] for group in spec["workerGroupSpecs"]]
    for pod in (head, *workers):
        ports = {port["name"]: port["containerPort"] for port in pod["ports"]}
        assert ray.telemetry.metrics_address.endswith(f":{ports['homeward']}")
    assert ray.telemetry.log_format == "json"
    for worker in workers:
        names = {variable["name"] for variable in worker["env"]}
        assert not any("PASSWORD" in one or "KEY" in one for one in names), "actors are handed their settings"


def test_shards_listen_where_the_policies_let_servers_reach_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = site("national")
    [head] = found.one("RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    settings = loaded(found.one("ConfigMap", "-ray"), head, tmp_path, monkeypatch)
    assert settings.index.ports == f"{SHARD_PORTS[0]}-{SHARD_PORTS[-1]}"


def test_settings_of_the_values_reach_homeward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "server": {"reflection": False, "max_concurrent_calls": 64},
        "search": {"default_k": 7},
        "workers": {"threads": 3, "precision": "bfloat16"},
        "gallery": {"collection": "other"},
        "loads": {"lapse_s": 33.5},
    }
    found = render(values={**ONE, "settings": wanted})
    [container] = found.one("Deployment")["spec"]["template"]["spec"]["containers"]
    settings = loaded(found.one("ConfigMap", "-server"), container, tmp_path, monkeypatch)
    for section, fields in wanted.items():
        for field, value in fields.items():
            assert getattr(getattr(settings, section), field) == value


@pytest.mark.parametrize(
    ("limit", "threads"), [("1500m", 2), ("250m", 1), (4, 4), ("0.5", 1), ("16", 16), (2.5, 3)]
)
def test_threads_follow_the_limit_of_cores(
    limit: object, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = render(values={"server": {"resources": {"limits": {"cpu": limit, "memory": "4Gi"}}}})
    [container] = found.one("Deployment")["spec"]["template"]["spec"]["containers"]
    settings = loaded(found.one("ConfigMap", "-server"), container, tmp_path, monkeypatch)
    assert settings.index.threads == threads


@pytest.mark.parametrize(
    ("query", "trust", "files"),
    [
        ("", "", {}),
        ("?sslmode=verify-full", "authority", dict.fromkeys(TRUSTED, "/etc/homeward/trust/ca.crt")),
        ("?sslmode=verify-full&sslrootcert=/some.pem", "", {}),
        (
            "?sslrootcert=system&sslmode=verify-full",
            "",
            {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"},
        ),
        (
            "?sslmode=verify-full&sslrootcert=system",
            "authority",
            dict.fromkeys(TRUSTED, "/etc/homeward/trust/ca.crt"),
        ),
    ],
)
def test_every_process_has_the_authorities_that_postgresql_is_checked_against(
    query: str, trust: str, files: dict[str, str]
) -> None:
    catalogue = {"uri": f"postgresql://db.example/homeward{query}", "passwordSecret": {"name": "postgres"}}
    values = merged(ONE, {"catalogue": catalogue, "trust": {"configMap": trust}, "ray": {"enabled": True}})
    for where, pod in render(values=values).pods():
        if where.startswith("Pod/"):
            continue  # of helm's test, which asks servers alone
        for container in pod["spec"]["containers"]:
            said = {one["name"]: one.get("value") for one in container["env"]}
            assert {name: said[name] for name in TRUSTED if name in said} == files

"""The RayCluster and the jobs on it: closed without the token, recoverable, told apart by what they do."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cluster.cli.main import app
from tests.helm.chart import Rendered, merged, render
from tests.helm.sites import NATIONAL, SITES, WITH_RAY, site
from tests.helm.test_network import SHARD_PORTS


def ray_pods(found: Rendered) -> list[dict[str, Any]]:
    return [pod for where, pod in found.pods() if where.startswith("RayCluster/")]


def job(found: Rendered, beginning: str) -> dict[str, Any]:
    [one] = [one for one in found.kind("RayJob") if one["metadata"]["name"].startswith(beginning)]
    return one


def test_ray_is_there_where_it_was_asked_for() -> None:
    assert [name for name in SITES if site(name).has("RayCluster")] == WITH_RAY


@pytest.mark.parametrize("name", WITH_RAY)
def test_ray_is_closed_to_who_has_no_token(name: str) -> None:
    spec = site(name).one("RayCluster")["spec"]
    assert spec["authOptions"]["mode"] == "token"
    for pod in ray_pods(site(name)):
        [container] = pod["spec"]["containers"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]


@pytest.mark.parametrize("name", WITH_RAY)
def test_a_log_of_rays_ends_before_its_volume_is_full(name: str) -> None:
    spec = site(name).one("RayCluster")["spec"]
    containers = [pod["spec"]["containers"][0] for pod in ray_pods(site(name))]
    if spec["enableInTreeAutoscaling"]:
        containers.append(spec["autoscalerOptions"])
    # Ray's own names: without the first, a worker's log is never rotated.
    rotations = [
        tuple(rule["value"] for rule in container["env"] if rule["name"].startswith("RAY_ROTATION_"))
        for container in containers
    ]
    workers = len(ray_pods(site(name)))
    assert rotations[:workers] == [(str(64 << 20), "2")] * workers
    assert rotations[workers:] in ([], [(str(8 << 20), "2")]), "thrice this is less than autoscaler-tmp"


@pytest.mark.parametrize("name", WITH_RAY)
def test_rays_ports_are_fixed_below_those_of_the_shards(name: str) -> None:
    spec = site(name).one("RayCluster")["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        ports = {key: int(value) for key, value in group["rayStartParams"].items() if key.endswith("-port")}
        assert len(set(ports.values())) == len(ports) == 7
        assert max(ports.values()) < min(SHARD_PORTS)
        [container] = group["template"]["spec"]["containers"]
        assert container["livenessProbe"]["httpGet"]["port"] == ports["dashboard-agent-listen-port"]


@pytest.mark.parametrize("name", WITH_RAY)
def test_nothing_is_placed_beside_the_head_and_only_gpu_groups_take_gpus(name: str) -> None:
    spec = site(name).one("RayCluster")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        [container] = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == (group["groupName"] in ("gpu", "one"))


def test_a_national_cluster_survives_its_head() -> None:
    fault = site("national").one("RayCluster")["spec"]["gcsFaultToleranceOptions"]
    assert fault["redisAddress"] == "redis://redis.example:6380"
    assert fault["redisPassword"]["valueFrom"]["secretKeyRef"]["name"] == "redis"
    groups = site("national").one("RayCluster")["spec"]["workerGroupSpecs"]
    assert all(group["maxReplicas"] > group["minReplicas"] for group in groups)


def test_only_the_autoscaler_gets_a_token_of_the_kubernetes_api() -> None:
    spec = site("national").one("RayCluster")["spec"]
    [mount] = [one for one in spec["autoscalerOptions"]["volumeMounts"] if one["name"] == "autoscaler-token"]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    fixed = site("national, fixed size").one("RayCluster")["spec"]
    assert "autoscalerOptions" not in fixed
    assert all(
        "autoscaler" not in one["name"] for one in fixed["headGroupSpec"]["template"]["spec"]["volumes"]
    )


@pytest.mark.parametrize("name", WITH_RAY)
def test_jobs_go_to_the_releases_own_cluster_under_names_that_kuberay_takes(name: str) -> None:
    found = site(name)
    for one in found.kind("RayJob"):
        assert "backoffLimit" not in one["spec"], "KubeRay refuses it beside a clusterSelector"
        assert one["spec"]["clusterSelector"] == {
            "ray.io/cluster": found.one("RayCluster")["metadata"]["name"]
        }
        assert len(one["metadata"]["name"]) <= 47
    assert len(found.one("RayCluster")["metadata"]["name"]) <= 50


def test_another_number_of_shards_is_another_job() -> None:
    def scaled(shards: int) -> dict[str, Any]:
        return job(render("national", values=merged(NATIONAL, {"index": {"shards": shards}})), "finder-index")

    assert scaled(8)["spec"]["entrypoint"] == "homeward index scale 8"
    assert scaled(9)["spec"]["entrypoint"] == "homeward index scale 9"
    assert scaled(8)["metadata"]["name"] != scaled(9)["metadata"]["name"]


def test_a_load_hands_the_command_the_words_of_the_values(tmp_path: Path) -> None:
    entrypoint = job(site("national"), "finder-march")["spec"]["entrypoint"]
    said = _run(entrypoint, tmp_path, exits=0)
    sources = ["s3://archive.example:9443/march", "/sources/it's here.tar"]
    whose = ["--agency", "XX", "--gallery", "missing", "--manifest", "/sources/march.csv"]
    assert said == [["load", "start", "march_2027", *sources, *whose, "--resume"]]
    command = get_command(app)
    assert command.name == "homeward"
    for words in (*said, ["index", "scale", "8"], ["load", "resume", "march_2027"]):
        _parse(words)


@pytest.mark.parametrize(
    ("start", "exits", "calls"),
    [
        (0, 0, 1),
        (6, 0, 1),  # photos were rejected: the load is done
        (4, 4, 1),  # the load of this name is another
        (5, 5, 3),  # stores do not answer: tried three times, for KubeRay would not
        (2, 2, 1),
    ],
)
def test_a_job_starts_its_load_or_goes_on_with_it(start: int, exits: int, calls: int, tmp_path: Path) -> None:
    entrypoint = job(site("national"), "finder-april")["spec"]["entrypoint"]
    said = _run(entrypoint, tmp_path, exits=exits, start=start)
    assert [(words[1], words[-1]) for words in said] == [("start", "--resume")] * calls


def _run(entrypoint: str, folder: Path, *, exits: int, start: int = 0) -> list[list[str]]:
    """Run an entrypoint as Ray does, with a `homeward` that notes its words; those."""
    program = folder / "homeward"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\0" "$@" >> {folder}/said; echo >> {folder}/said\n'
        f'case "$2" in start) exit {start};; esac\n'
    )
    program.chmod(0o755)
    (folder / "sleep").symlink_to("/bin/true")
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(entrypoint, shell=True, env=environment, check=False, timeout=30)
    assert done.returncode == exits
    return [line.rstrip("\0").split("\0") for line in (folder / "said").read_text().splitlines()]


def _parse(words: list[str]) -> None:
    """Have the real command line take the words, without running anything."""
    command: Any = get_command(app)
    context = command.make_context("homeward", list(words), resilient_parsing=True)
    rest = words
    while hasattr(command, "get_command"):
        name, rest = rest[0], rest[1:]
        found = command.get_command(context, name)
        assert found is not None, f"homeward has no {shlex.join(words)}"
        command = found
    command.make_context(words[-1], list(rest))

"""Values that cannot work are refused before anything is installed, in words that name them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tests.helm.chart import CHART, Refused, merged, render, run
from tests.helm.sites import NATIONAL, ONE, STORES, Values


def at(path: str, value: object) -> Values:
    """{"a": {"b": value}} for a.b."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def refusal(*files: str, values: Values) -> str:
    with pytest.raises(Refused) as refused:
        render(*files, values=values)
    return str(refused.value)


# Where, and what is wrong there: of each kind of value one of another type, out of range, or of no such form.
_WRONG: list[tuple[str, Any]] = [
    ("replica", 3),
    ("server.replica", 3),
    ("server.replicas", "three"),
    ("server.replicas", 0),
    ("server.replicas", 2.5),
    ("server.port", 70000),
    ("server.port", "7443"),
    ("server.listen", "127.0.0.1"),
    ("server.gpus", -1),
    ("server.resources.limits.memory", None),
    ("server.resources.limits.memory", "8 GB"),
    ("server.resources.limits.memory", "8192m"),
    ("server.resources.limits.cpu", True),
    ("server.tls.secretName", "Not_A_Name"),
    ("server.tls.certManager.issuerKind", "Authority"),
    ("server.preStopSeconds", 0),
    ("server.drainSeconds", -1),
    ("server.connectionAgeSeconds", "5m"),
    ("server.autoscaling.enabled", "yes"),
    ("server.autoscaling.cpuPercent", 0),
    ("server.disruption.maxUnavailable", "half"),
    ("server.data.size", "big"),
    ("server.data.size", "500m"),
    ("server.searchLog.size", "500m"),
    ("ray.sharedMemory", "500m"),
    ("ray.scratch.size", "500m"),
    ("ray.head.resources.limits.memory", "500m"),
    ("server.searchLog.ephemeral", 1),
    ("server.tolerations", "all"),
    ("server.nodeSelector.disk", 1),
    ("image.repository", "homeward/homeward:1.0"),
    ("image.repository", ""),
    ("image.tag", "1.0@sha256"),
    ("image.pullPolicy", "Sometimes"),
    ("image.pullSecrets", "mine"),
    ("catalogue.uri", "mysql://db.example/homeward"),
    ("catalogue.uri", "postgresql://homeward:hunter2@db.example/homeward"),
    ("catalogue.uri", "postgresql://homeward@db.example/homeward?password=hunter2"),
    ("catalogue.uri", "postgresql://homeward@db.example/homeward?a=b&sslpassword=hunter2"),
    ("catalogue.password", "hunter2"),
    ("catalogue.passwordSecret.key", ""),
    ("gallery.uri", "milvus.example:19530"),
    ("photos.uri", "https://s3.example/photos"),
    ("photos.uri", "s3://s3.example"),
    ("photos.secure", "true"),
    ("index.where", "ray"),
    ("index.device", "gpu"),
    ("index.replicas", 0),
    ("index.shardCpus", 0),
    ("ray.enabled", "on"),
    ("ray.groups", []),
    ("ray.groups", [{"name": "gpu"}]),
    ("ray.groups", [{"name": "GPU", "minReplicas": 0, "maxReplicas": 1, "resources": {"limits": {}}}]),
    ("ray.gcsFaultTolerance.redisAddress", "redis.example:6379"),
    ("ray.gcsFaultTolerance.redisAddress", "redis://:hunter2@redis.example:6379"),
    ("ray.autoscaling.idleSeconds", 1),
    ("loads", [{"name": "march"}]),
    ("loads", [{"name": "March!", "agency": "X", "gallery": "missing", "sources": ["s3://a/b"]}]),
    ("loads", [{"name": "march", "agency": "X", "gallery": "missing", "sources": ["march.tar"]}]),
    ("loads", [{"name": "march", "agency": "X", "gallery": "missing", "sources": []}]),
    ("networkPolicy.clients", ["everybody"]),
    ("networkPolicy.clients", [{}]),
    ("networkPolicy.operatorNamespace", ["kuberay"]),
    ("monitoring.metricsPort", 0),
    ("logging.level", "loud"),
    ("logging.format", "xml"),
    ("monitoring.serviceMonitor.interval", "often"),
    ("tests.caKey", "a b"),
    ("fullnameOverride", "a-name-of-more-than-24-characters"),
    ("settings.search.max_k", 0),
    ("settings.search.max_k", "many"),
    ("settings.search.maxK", 10),
    ("settings.searching", {}),
    ("settings.index.where", "shards"),
    ("settings.server.address", "0.0.0.0:1"),
    ("settings.gallery.token", "hunter2"),
    ("settings.workers.precision", "float16"),
    ("settings.gallery.collection", "Homeward"),
]


# Helm names all wrong values at once: the first of every path go together, then the second, ...
_TURN = [sum(path == before for before, _ in _WRONG[:number]) for number, (path, _) in enumerate(_WRONG)]


@cache
def said_of(turn: int) -> str:
    wrong = [at(path, value) for (path, value), own in zip(_WRONG, _TURN, strict=True) if own == turn]
    return refusal(values=merged(ONE, *wrong))


@pytest.mark.parametrize(
    ("path", "turn"),
    [(path, turn) for (path, _), turn in zip(_WRONG, _TURN, strict=True)],
    ids=[f"{path}={value}"[:60] for path, value in _WRONG],
)
def test_a_wrong_value_is_refused_by_its_name(path: str, turn: int) -> None:
    said = said_of(turn)
    # Either the value itself is pointed at, or the object that has no such name, or lacks it.
    parent, _, name = path.rpartition(".")
    itself = f"at '/{path.replace('.', '/')}"
    owner = f"at '/{parent.replace('.', '/')}'" if parent else "at ''"
    assert any(
        f"{itself}'" in line or f"{itself}/" in line or (owner in line and f"'{name}'" in line)
        for line in said.splitlines()
    ), said


# Values that contradict each other, or names that lack; and the words that the message must hold.
_CONTRADICTIONS: dict[str, tuple[Values, list[str]]] = {
    "an image that changes by itself": (at("image.tag", "latest"), ["image.tag", "latest"]),
    "some stores embedded": (
        merged(STORES, at("gallery.uri", "")),
        ["gallery.uri is empty", "catalogue.uri and photos.uri"],
    ),
    "no password": (merged(ONE, at("catalogue.passwordSecret.name", "")), ["catalogue.passwordSecret.name"]),
    "nobody to check PostgreSQL against": (
        merged(ONE, at("catalogue.uri", "postgresql://homeward@db.example/homeward?sslmode=verify-full")),
        ["catalogue.uri", "trust.configMap", "sslrootcert=system"],
    ),
    "nobody to check PostgreSQL's authority against": (
        merged(ONE, at("catalogue.uri", "postgresql://db.example/homeward?a=b&sslmode=verify-ca&c=d")),
        ["catalogue.uri", "trust.configMap"],
    ),
    "a model that nobody can install": (
        merged(ONE, at("model.bundle", "strong")),
        ["model.bundle is strong", "model.existingClaim"],
    ),
    "an index on a GPU that no server has": (
        merged(ONE, at("index.device", "cuda:0")),
        ["index.device is cuda:0", "server.gpus"],
    ),
    "no S3 keys": (merged(ONE, at("photos.keysSecret.name", "")), ["photos.keysSecret.name"]),
    "no place for the log": (merged(ONE, at("server.searchLog.existingClaim", "")), ["server.searchLog"]),
    "two places for the log": (merged(ONE, at("server.searchLog.ephemeral", True)), ["server.searchLog"]),
    "embedded stores, two servers": (at("server.replicas", 2), ["server.replicas", "embedded"]),
    "embedded stores, autoscaled": (at("server.autoscaling.enabled", True), ["server.autoscaling"]),
    "embedded stores on Ray": (at("ray.enabled", True), ["ray.enabled", "catalogue.uri"]),
    "two servers on loopback": (merged(STORES, at("server.replicas", 2)), ["server.tls.secretName"]),
    "clients' authority alone": (
        merged(STORES, at("server.tls.clientCa.secretName", "ca")),
        ["server.tls.clientCa", "server.tls.secretName"],
    ),
    "two certificates": (
        merged(ONE, at("server.tls.certManager.issuerName", "x")),
        ["server.tls", "not both"],
    ),
    "autoscaling upside down": (
        merged(ONE, at("server.autoscaling", {"enabled": True, "minReplicas": 5, "maxReplicas": 4})),
        ["server.autoscaling", "minReplicas"],
    ),
    "one port twice": (at("monitoring.metricsPort", 7443), ["monitoring.metricsPort", "server.port"]),
    "the port of health": (at("server.port", 7444), ["server.port", "7444"]),
    "loads without Ray": (
        merged(
            ONE,
            at("loads", [{"name": "a", "agency": "X", "gallery": "missing", "sources": ["s3://a/b"]}]),
        ),
        ["loads", "ray.enabled"],
    ),
    "shards without Ray": (
        merged(ONE, at("index.where", "shards"), at("index.tokenSecret.name", "x")),
        ["index.where", "ray.enabled"],
    ),
    "client certificates that the test lacks": (
        merged(ONE, at("server.tls.clientCa.secretName", "ca")),
        ["tests.clientSecret"],
    ),
}


@pytest.mark.parametrize("name", _CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused(name: str) -> None:
    values, words = _CONTRADICTIONS[name]
    said = refusal(values=values)
    assert "These values cannot work" in said
    assert all(word in said for word in words), said


_NATIONAL: dict[str, tuple[Values, str]] = {
    "no Redis": (at("ray.gcsFaultTolerance.redisAddress", ""), "ray.gcsFaultTolerance.redisAddress is empty"),
    "Redis without a password": (
        at("ray.gcsFaultTolerance.passwordSecret.name", ""),
        "ray.gcsFaultTolerance.passwordSecret.name is empty",
    ),
    "no fault tolerance": (
        at("ray.gcsFaultTolerance.enabled", False),
        "set ray.gcsFaultTolerance.enabled",
    ),
    "no token of the shards": (at("index.tokenSecret.name", ""), "index.tokenSecret.name is empty"),
    "fewer shards than replicas": (at("index.shards", 1), "index.shards is less than index.replicas"),
    "shards larger than every pod": (
        at("index.shardCpus", 16.5),
        "index.shardCpus is 16.5, and no pod of ray.groups has more than 16",
    ),
    "shards on GPUs that they do not ask for": (
        merged(at("index.device", "cuda"), at("server.gpus", 1)),
        "index.device is cuda, and no shard asks for a GPU: set index.shardGpus",
    ),
    "sources on no volume": (at("ray.sources.existingClaim", ""), "set ray.sources.existingClaim"),
    "two loads of one name": (
        at("loads", [NATIONAL["loads"][1], NATIONAL["loads"][1]]),
        "loads: there are two of the name april",
    ),
    "a fixed size with bounds": (
        at("ray.autoscaling.enabled", False),
        "without ray.autoscaling minReplicas and maxReplicas are the same",
    ),
}


@pytest.mark.parametrize("name", _NATIONAL)
def test_a_national_cluster_lacks_nothing_silently(name: str) -> None:
    values, words = _NATIONAL[name]
    assert words in refusal("national", values=merged(NATIONAL, values))


@pytest.mark.parametrize(
    ("files", "values"),
    [
        ((), at("model.bundle", "strong")),  # embedded stores: installed on the server's own volume
        ((), merged(ONE, at("model", {"bundle": "strong", "existingClaim": "models"}))),
        ((), merged(ONE, at("index.device", "cuda"), at("server.gpus", 1))),
        (("national",), merged(NATIONAL, at("index", {"device": "cuda", "shardGpus": 0.5}))),
        (("national",), merged(NATIONAL, at("index.shardCpus", 16))),
        ((), merged(ONE, at("catalogue.uri", "postgresql://db.example/homeward?passfile=/password=/x"))),
        ((), at("server.resources.limits", {"cpu": "500m", "memory": "0.5Gi"})),
    ],
)
def test_what_comes_close_to_a_refusal_is_taken(files: tuple[str, ...], values: Values) -> None:
    assert render(*files, values=values).has("Deployment")


@pytest.mark.parametrize("file", ["one-gpu-server", "national"])
def test_values_files_alone_say_everything_that_is_still_to_be_set(file: str) -> None:
    said = refusal(file, values={})
    assert "catalogue.uri" in said
    if file == "national":
        for name in ("server.tls.secretName", "index.tokenSecret.name", "redisAddress", "passwordSecret"):
            assert name in said


@pytest.mark.parametrize("name", ["a-release-name-of-25-chars", "7homeward"])
def test_a_name_that_kubernetes_or_kuberay_would_refuse_is_refused(name: str) -> None:
    done = run("template", name, str(CHART))
    assert done.returncode
    assert "fullnameOverride" in done.stderr

"""Values of sites: what an operator adds to the values files, and a matrix of switches over them."""

from __future__ import annotations

from typing import Any

from tests.helm.chart import OTHER, Rendered, merged, render

Values = dict[str, Any]

TLS: Values = {"server": {"tls": {"secretName": "server-tls"}}}
STORES: Values = {
    "catalogue": {
        "uri": "postgresql://homeward@db.example:5433/homeward?sslmode=verify-full&sslrootcert=system",
        "passwordSecret": {"name": "postgres", "key": "homeward"},
    },
    "gallery": {"uri": "https://milvus.example:19530", "tokenSecret": {"name": "milvus"}},
    "photos": {"uri": "s3://s3.example:9000/homeward-photos/archive", "keysSecret": {"name": "s3"}},
    "server": {"searchLog": {"existingClaim": "search-log"}},
}
ONE = merged(STORES, TLS)
NATIONAL = merged(
    ONE,
    {
        "index": {"tokenSecret": {"name": "shards"}},
        "ray": {
            "tokenSecret": {"name": "ray"},
            "gcsFaultTolerance": {
                "redisAddress": "redis://redis.example:6380",
                "passwordSecret": {"name": "redis"},
            },
            "sources": {"existingClaim": "archives"},
        },
        "networkPolicy": {
            "clients": [{"namespaceSelector": {"matchLabels": {"team": "cases"}}}],
            "metrics": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
            "operatorNamespace": "kuberay",
        },
        "loads": [
            {
                "name": "march_2027",
                "agency": "XX",
                "gallery": "missing",
                "sources": ["s3://archive.example:9443/march", "/sources/it's here.tar"],
                "manifest": "/sources/march.csv",
            },
            {"name": "april", "agency": "XX", "gallery": "found", "sources": ["s3://bucket/april"]},
        ],
    },
)
TRUST: Values = {
    "trust": {"configMap": "authority"},
    "model": {"bundle": "strong", "existingClaim": "models"},
}
ISSUER: Values = {
    "server": {
        "tls": {
            "certManager": {
                "issuerName": "authority",
                "issuerKind": "ClusterIssuer",
                "dnsNames": ["homeward.example"],
            },
            "clientCa": {"secretName": "agencies-ca"},
        }
    },
    "tests": {"photosSecret": "photos", "clientSecret": "tester"},
}
MONITORED: Values = {
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True},
    }
}

# name: (values files, values)
SITES: dict[str, tuple[tuple[str, ...], Values]] = {
    "defaults": ((), {}),
    "evaluation": (("evaluation",), {}),
    "evaluation with TLS": (("evaluation",), TLS),
    "evaluation on a volume": ((), {"server": {"data": {"existingClaim": "mine", "storageClass": "fast"}}}),
    "stores, one server": ((), ONE),
    "stores, on loopback": ((), STORES),
    "stores, autoscaled": ((), merged(ONE, {"server": {"autoscaling": {"enabled": True}}})),
    "one GPU server": (("one-gpu-server",), ONE),
    "national": (("national",), NATIONAL),
    "national, cert-manager, clients' certificates": (
        ("national",),
        merged(NATIONAL, {"server": {"tls": {"secretName": ""}}}, ISSUER, TRUST),
    ),
    "national, watched": (("national",), merged(NATIONAL, MONITORED)),
    "national, no policies": (("national",), merged(NATIONAL, {"networkPolicy": {"enabled": False}})),
    "national, fixed size": (
        ("national",),
        merged(
            NATIONAL,
            {
                "server": {"autoscaling": {"enabled": False}, "gpus": 1},
                "ray": {
                    "autoscaling": {"enabled": False},
                    "scratch": {"size": "1Ti", "storageClass": "nvme"},
                    "groups": [
                        {
                            "name": "one",
                            "minReplicas": 4,
                            "maxReplicas": 4,
                            "gpus": 2,
                            "runtimeClassName": "nvidia",
                            "nodeSelector": {"disk": "fast"},
                            "resources": {"limits": {"cpu": 16, "memory": "64Gi"}},
                        }
                    ],
                },
            },
        ),
    ),
    "search log on a claim of the chart's": (
        (),
        merged(ONE, {"server": {"searchLog": {"existingClaim": "", "size": "5Gi", "storageClass": "rwx"}}}),
    ),
    "everything else": (
        (),
        merged(
            ONE,
            {
                "fullnameOverride": OTHER,
                "image": {
                    "repository": "registry.example:5000/homeward",
                    "tag": "1.2.3",
                    "pullSecrets": ["pull"],
                },
                "server": {
                    "listen": "[::]",
                    "searchLog": {"existingClaim": "", "ephemeral": True},
                    "scratch": {"size": "50Gi", "storageClass": "nvme"},
                    "resources": {"limits": {"cpu": "1500m", "memory": "8Gi"}},
                    "podAnnotations": {"note": "yes"},
                    "serviceAnnotations": {"note": "yes"},
                    "nodeSelector": {"disk": "fast"},
                    "tolerations": [{"operator": "Exists"}],
                    "affinity": {"nodeAffinity": {}},
                    "priorityClassName": "high",
                },
                "networkPolicy": {"stores": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
                "settings": {"search": {"max_k": 500}, "server": {"reflection": False}},
            },
        ),
    ),
}

# Told from the files, so that collecting tests runs no helm.
WITH_RAY = [name for name, (files, _) in SITES.items() if {"one-gpu-server", "national"} & {*files}]


def site(name: str) -> Rendered:
    """A site of the matrix, rendered."""
    files, values = SITES[name]
    return render(*files, values=values)

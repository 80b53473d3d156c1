"""A client with the service config that the chart publishes."""

from __future__ import annotations

import json

import grpc

from benchmarks.headless import Headless
from tests.helm.chart import Rendered

_RETRY_BUFFER = 32 << 20  # as docs/kubernetes.md says: else calls with photos are not tried again


def published(rendered: Rendered) -> tuple[str, str]:
    """The name and port that clients call (`name:port`), and their service config."""
    data = rendered.one("ConfigMap", "-clients")["data"]
    return str(data["target"]).removeprefix("dns:///"), str(data["service-config.json"])


def without_retries(service_config: str) -> str:
    """The same service config, but for retries: gRPC's own, of calls that no server has seen, stay."""
    said = json.loads(service_config)
    for method in said["methodConfig"]:
        del method["retryPolicy"]
    return json.dumps(said)


def channel(service: Headless, target: str, service_config: str, authority: bytes) -> grpc.aio.Channel:
    """As documented for clients, but for the DNS server, which is the one of the Service here."""
    return grpc.aio.secure_channel(
        f"dns://{service.address}/{target}",
        grpc.ssl_channel_credentials(root_certificates=authority),
        options=[
            ("grpc.service_config", service_config),
            ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER),
            ("grpc.max_receive_message_length", _RETRY_BUFFER),
        ],
    )

"""Exit code 0 when the server of this container serves; for `docker run`, with server.health_address set."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from homeward.config import Settings

_ANSWER_S = 5.0


def serves(address: str) -> bool:
    """Whether a server that listens on all addresses, or on loopback, is ready."""
    _, _, port = address.rpartition(":")
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_S)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main() -> str | int:
    """What `sys.exit` wants: 0, or why not."""
    config = os.environ.get("HOMEWARD_CONFIG")
    address = Settings.load(Path(config) if config else None).server.health_address
    if not address:
        return "server.health_address is not set: this container's health is unknown"
    try:
        return 0 if serves(address) else "not serving"
    except grpc.RpcError as error:
        return f"no answer: {error}"


if __name__ == "__main__":
    sys.exit(main())

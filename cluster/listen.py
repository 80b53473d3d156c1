"""Where the server listens, and under which conditions: off loopback only with TLS."""

from __future__ import annotations

import ipaddress
import re

import grpc

from cluster.certificates import Certificates
from homeward.config import ServerSettings
from homeward.errors import InvalidInput, Unavailable

_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9.*_-]*):(?P<port>[0-9]{1,5})")


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of `host:port` or `[v6]:port`. Raises `InvalidInput`."""
    parts = _HOST_PORT.fullmatch(address)
    if parts is None or int(parts["port"]) > 65535:
        raise InvalidInput(
            f"{address!r} is no address: use host:port, [IPv6]:port or unix:path",
            code="ADDRESS_INVALID",
            field="server.address",
        )
    return parts["host"].strip("[]"), int(parts["port"])


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address. Names other than localhost are not trusted."""
    if address.startswith("unix:"):
        return True
    host, _ = split_address(address)
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """What the settings say about TLS; None for a plain listener. Renewed files are taken as they come.

    Raises `InvalidInput` (TLS_REQUIRED) for a plain listener off loopback, and (TLS_INVALID) for
    half a key pair or a file that is missing or no PEM.
    """
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None and key is None:
        if client_ca is not None:
            raise InvalidInput(
                "server.tls_client_ca needs server.tls_certificate and server.tls_key", code="TLS_INVALID"
            )
        if not is_loopback(settings.address):
            raise InvalidInput(
                f"{settings.address} can be reached from other machines: set server.tls_certificate and "
                "server.tls_key (HOMEWARD_SERVER__TLS_CERTIFICATE, HOMEWARD_SERVER__TLS_KEY), or listen "
                "on 127.0.0.1",
                code="TLS_REQUIRED",
                field="server.tls_certificate",
            )
        return None
    if certificate is None or key is None:
        raise InvalidInput(
            "server.tls_certificate and server.tls_key go together: set both", code="TLS_INVALID"
        )
    return Certificates(certificate, key, client_ca).credentials()


def channel_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """gRPC's options for the settings. The port is never shared with another process silently."""
    age_ms = int(settings.max_connection_age_s * 1000)
    aging = [("grpc.max_connection_age_ms", age_ms)] if age_ms else []
    return [
        *aging,
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", int(settings.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


def bind(server: grpc.aio.Server, settings: ServerSettings) -> str:
    """Bind the address and return it with the port that was given for port 0.

    Raises `Unavailable` (ADDRESS_IN_USE), and `InvalidInput` for key material that is none.
    """
    return _bind(server, settings.address, server_credentials(settings))


def bind_health(server: grpc.aio.Server, address: str) -> str:
    """Bind the address of a listener that says nothing but how the server is, and return it likewise.

    It is plain off loopback, too: Kubernetes' gRPC probes speak no TLS. Raises as `bind`.
    """
    return _bind(server, address, None)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    is_unix = address.startswith("unix:")
    host = "" if is_unix else split_address(address)[0]
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {address}: is another server running there?", code="ADDRESS_IN_USE"
        ) from error
    if is_unix:
        return address
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}"

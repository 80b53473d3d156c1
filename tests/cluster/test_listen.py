"""Off loopback only with TLS, and key material is checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from cluster.listen import bind, channel_options, is_loopback, server_credentials, split_address
from homeward.config import ServerSettings
from homeward.errors import InvalidInput, Unavailable
from tests.cluster.certificates import Authority


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:7443", "127.8.9.1:0", "[::1]:7443", "localhost:1", "LOCALHOST:1", "unix:/run/homeward.sock"],
)
def test_loopback_needs_no_tls(address: str) -> None:
    assert is_loopback(address)
    assert server_credentials(ServerSettings(address=address)) is None


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:7443",
        "[::]:7443",
        ":7443",
        "10.0.0.1:7443",
        "localhost.example.org:7443",
        "server:1",
        "[fe80::1]:1",
        "[::ffff:10.0.0.1]:1",
    ],
)
def test_anything_else_is_refused_without_tls(address: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        server_credentials(ServerSettings(address=address))
    assert refused.value.code == "TLS_REQUIRED"
    assert "tls_certificate" in refused.value.message


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:x", "localhost:70000", "::1:80", "a b:1", "dns:///x:1", "[::1]"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        split_address(address)
    assert refused.value.code == "ADDRESS_INVALID"


def test_a_certificate_with_its_key_is_taken(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server")
    settings = ServerSettings(address="0.0.0.0:1", tls_certificate=pair.certificate, tls_key=pair.key)
    assert server_credentials(settings) is not None


@pytest.mark.parametrize(
    "wrong", ["no key", "other key", "missing", "no pem", "client ca alone", "empty", "client ca"]
)
def test_wrong_key_material_is_a_typed_error(tmp_path: Path, wrong: str) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("server"), authority.issue("other")
    certificate: Path | None = pair.certificate
    key: Path | None = pair.key
    client_ca: Path | None = None
    match wrong:
        case "no key":
            key = None
        case "other key":
            key = other.key
        case "missing":
            certificate = tmp_path / "missing.pem"
        case "no pem":
            pair.certificate.write_bytes(b"\x30\x82")
        case "empty":
            pair.key.write_bytes(b"")
        case "client ca":
            client_ca = pair.key
        case "client ca alone":
            certificate, key, client_ca = None, None, authority.certificate
    settings = ServerSettings(
        address="127.0.0.1:0", tls_certificate=certificate, tls_key=key, tls_client_ca=client_ca
    )
    with pytest.raises(InvalidInput) as refused:
        server_credentials(settings)
    assert refused.value.code == "TLS_INVALID"


async def test_a_port_in_use_is_never_shared() -> None:
    settings = ServerSettings(address="127.0.0.1:0")
    first = grpc.aio.server(options=channel_options(settings))
    second = grpc.aio.server(options=channel_options(settings))
    address = bind(first, settings)
    await first.start()
    try:
        assert not address.endswith(":0")
        with pytest.raises(Unavailable) as refused:
            bind(second, ServerSettings(address=address))
        assert refused.value.code == "ADDRESS_IN_USE"
    finally:
        await first.stop(0)

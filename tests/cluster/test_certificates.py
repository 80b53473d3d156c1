"""A certificate that is renewed while the server listens: new connections get it, nothing else changes."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from cluster.listen import bind
from homeward.config import ServerSettings
from tests.cluster.certificates import Authority, Pair


@asynccontextmanager
async def listening(pair: Pair, client_ca: Path | None = None) -> AsyncIterator[str]:
    """A server with this certificate; its address."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    settings = ServerSettings(
        address="127.0.0.1:0",
        tls_certificate=pair.certificate,
        tls_key=pair.key,
        tls_client_ca=client_ca,
    )
    address = bind(server, settings)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)


async def shown(address: str) -> bytes:
    """The certificate of a new connection, DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.partition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found
    finally:
        writer.transport.abort()


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


async def call(address: str, authority: Authority, client: Pair | None = None) -> None:
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(),
        client.key.read_bytes() if client else None,
        client.certificate.read_bytes() if client else None,
    )
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


async def test_a_renewed_certificate_is_shown_and_running_connections_stay(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    used, renewed = authority.issue("server"), authority.issue("renewed")
    first = der(used)
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    async with listening(used) as address, grpc.aio.secure_channel(address, credentials) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert await shown(address) == first
        shutil.copy(renewed.certificate, used.certificate)
        shutil.copy(renewed.key, used.key)
        assert await shown(address) == der(renewed) != first
        await call(address, authority)
        await health.Check(health_pb2.HealthCheckRequest(), timeout=10)


async def test_while_files_do_not_fit_or_are_gone_the_certificate_before_them_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    used, renewed = authority.issue("server"), authority.issue("renewed")
    first, old = der(used), used.key.read_bytes()
    async with listening(used) as address:
        shutil.copy(renewed.certificate, used.certificate)  # the key is still the old one
        for _ in range(3):
            assert await shown(address) == first
        assert len([one for one in caplog.records if "stays in use" in one.message]) == 1
        assert old.decode() not in caplog.text
        used.key.unlink()
        assert await shown(address) == first
        used.key.write_bytes(b"no key at all")
        assert await shown(address) == first
        await call(address, authority)
        shutil.copy(renewed.key, used.key)
        assert await shown(address) == der(renewed)


async def test_clients_of_an_authority_that_was_replaced_are_refused(tmp_path: Path) -> None:
    before, after = Authority(tmp_path, "before"), Authority(tmp_path, "after")
    client_ca = tmp_path / "clients.pem"
    shutil.copy(before.certificate, client_ca)
    old, new = before.issue("old"), after.issue("new")
    async with listening(before.issue("server"), client_ca) as address:
        await call(address, before, old)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(address, before, new)
        shutil.copy(after.certificate, client_ca)
        await call(address, before, new)
        client_ca.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        await call(address, before, new)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(address, before, old)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(address, before)

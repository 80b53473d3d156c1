"""TLS of a server: who reaches it with which certificate, and what stays plain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from cluster.cli.session import certificate_name, channel_to_own
from cluster.searchlog import log_files
from cluster.server import LIVE
from homeward.config import ServerSettings, Settings
from homeward.errors import InvalidInput
from tests.cluster.bare_server import by_template, health, refusal, serving
from tests.cluster.certificates import Authority, Pair
from tests.cluster.clients import search_stub


async def test_nothing_is_opened_for_an_address_that_needs_tls(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        async with serving(tmp_path / "data", address="0.0.0.0:0"):
            pass
    assert refused.value.code == "TLS_REQUIRED"
    assert not (tmp_path / "data").exists()


async def test_health_has_a_plain_port_of_its_own_beside_tls(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server")
    async with (
        serving(
            tmp_path / "data",
            health_address="127.0.0.1:0",
            tls_certificate=pair.certificate,
            tls_key=pair.key,
        ) as server,
        grpc.aio.insecure_channel(server.health_address) as channel,
    ):
        assert await health(channel) == health_pb2.HealthCheckResponse.SERVING
        assert await health(channel, LIVE) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await search_stub(channel).Search(by_template())
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("sees_clients", [False, True])
async def test_the_command_reaches_the_server_of_its_folder_whatever_its_certificate_is_for(
    tmp_path: Path, sees_clients: bool
) -> None:
    """As on a pod, whose certificate names the service."""
    authority = Authority(tmp_path)
    pair = authority.issue("server", ["*.homeward.svc"], local=False)
    given: dict[str, Any] = {
        "address": "0.0.0.0:0",
        "tls_certificate": pair.certificate,
        "tls_key": pair.key,
        "tls_client_ca": authority.certificate if sees_clients else None,
    }
    async with serving(tmp_path / "data", **given) as server:
        settings = Settings(data_dir=tmp_path / "data", server=ServerSettings(**given))
        async with channel_to_own(settings, server.address) as channel:
            assert (await search_stub(channel).Search(by_template(), timeout=10)).search_id


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    path.write_text("none")
    with pytest.raises(InvalidInput, match="is no certificate"):
        certificate_name(path)


@pytest.mark.parametrize("client", ["right", "none", "other authority", "plain"])
async def test_tls_with_client_certificates(tmp_path: Path, client: str) -> None:
    authority, other = Authority(tmp_path, "authority"), Authority(tmp_path, "other-authority")
    mine, shown = authority.issue("server"), authority.issue("case-system")
    stranger = other.issue("stranger")
    async with serving(
        tmp_path / "data",
        address="0.0.0.0:0",
        tls_certificate=mine.certificate,
        tls_key=mine.key,
        tls_client_ca=authority.certificate,
    ) as server:
        target = f"localhost:{server.address.rsplit(':', 1)[1]}"
        if client == "plain":
            channel = grpc.aio.insecure_channel(target)
        else:
            pair: Pair | None = {"right": shown, "none": None, "other authority": stranger}[client]
            channel = grpc.aio.secure_channel(
                target,
                grpc.ssl_channel_credentials(
                    root_certificates=authority.certificate.read_bytes(),
                    private_key=pair.key.read_bytes() if pair else None,
                    certificate_chain=pair.certificate.read_bytes() if pair else None,
                ),
            )
        async with channel:
            if client == "right":
                answer = await search_stub(channel).Search(by_template(), timeout=10)
                line = log_files(tmp_path / "data" / "search-log")[-1].read_text()
                assert answer.search_id in line
                assert '"client":"case-system"' in line
            else:
                error = await refusal(search_stub(channel).Search(by_template(), timeout=10))
                assert error.code == "SERVER_UNREACHABLE"

"""Connect a verb to Homeward: to a running server, or to one started in this process for the call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
from rich.console import Console

from cluster.cli.state import State
from cluster.ownership import is_owned
from homeward.config import Settings
from homeward.errors import InvalidInput, StoreUnavailable
from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from homeward.v1.operations_pb2_grpc import OperationsServiceStub
from homeward.v1.search_pb2_grpc import SearchServiceStub

ADDRESS_FILE = "server.json"
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - where one calls who listens everywhere


if TYPE_CHECKING:  # the generator writes these names into the type stubs only
    from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceAsyncStub
    from homeward.v1.operations_pb2_grpc import OperationsServiceAsyncStub
    from homeward.v1.search_pb2_grpc import SearchServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Session:
    """The three services behind one channel."""

    address: str
    embedded: bool  # the server lives in this process, for this call
    enrolment: EnrolmentServiceAsyncStub
    search: SearchServiceAsyncStub
    operations: OperationsServiceAsyncStub


def channel_to(settings: Settings, address: str, *, name: str = "") -> grpc.aio.Channel:
    """A channel to a server, over TLS when `server.tls_root` is set. `name`: of its certificate, if that is
    not for the address."""
    size = settings.server.max_message_bytes
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", size),
        ("grpc.max_receive_message_length", size),
        # Photos of children must not pass through whatever proxy the environment names.
        ("grpc.enable_http_proxy", 0),
    ]
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    root = settings.server.tls_root
    if root is None:
        return grpc.aio.insecure_channel(address, options=options)
    try:
        certificate, key = settings.server.tls_certificate, settings.server.tls_key
        credentials = grpc.ssl_channel_credentials(
            root_certificates=root.read_bytes(),
            private_key=key.read_bytes() if key and certificate else None,
            certificate_chain=certificate.read_bytes() if key and certificate else None,
        )
    except OSError as error:
        raise InvalidInput(
            f"cannot read {error.filename}: {error.strerror}", code="CONFIG_INVALID"
        ) from error
    return grpc.aio.secure_channel(address, credentials, options=options)


def channel_to_own(settings: Settings, address: str) -> grpc.aio.Channel:
    """A channel to the server that owns this data folder, whose certificate's files are these settings': that
    certificate is trusted for whatever name it has, and shown, where the server wants to see one."""
    host, _, port = address.rpartition(":")
    address = f"{_LOOPBACK.get(host, host)}:{port}"
    certificate = settings.server.tls_certificate
    if settings.server.tls_root is not None or certificate is None:
        return channel_to(settings, address)
    server = settings.server.model_copy(update={"tls_root": certificate})
    name = certificate_name(certificate)
    return channel_to(settings.model_copy(update={"server": server}), address, name=name)


def certificate_name(path: Path) -> str:
    """A name that the first certificate of a PEM file is for. Raises `InvalidInput` (TLS_INVALID)."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise InvalidInput(
            f"{path} is no certificate with a name of its own",
            code="TLS_INVALID",
            field="server.tls_certificate",
        ) from error
    found = names.get_values_for_type(x509.DNSName)
    found += [str(one) for one in names.get_values_for_type(x509.IPAddress)]
    return found[0].replace("*", "any", 1) if found else ""


def running_address(data_dir: Path) -> str | None:
    """Where the server that owns this data folder listens; None when no process owns it."""
    if not is_owned(data_dir):
        return None
    try:
        return str(json.loads((data_dir / ADDRESS_FILE).read_text())["address"])
    except (OSError, ValueError, KeyError) as error:
        raise StoreUnavailable(
            f"another process is starting or using {data_dir}; wait for it, or name a server with --server"
        ) from error


@asynccontextmanager
async def open_session(state: State) -> AsyncIterator[Session]:
    """A session with `--server`, else with the data folder's running server, else with a new one."""
    settings = state.settings
    if state.server:
        async with channel_to(settings, state.server) as channel:
            yield session_of(channel, state.server, embedded=False)
        return
    address = running_address(settings.data_dir)
    if address is not None:
        async with channel_to_own(settings, address) as channel:
            yield session_of(channel, address, embedded=False)
        return
    # Imported late: only a server of our own needs torch and the stores.
    from cluster.server import running_server

    quiet = Console(stderr=True)
    loopback: dict[str, str | None] = {"address": "127.0.0.1:0", "tls_certificate": None, "tls_key": None}
    loopback |= {"tls_client_ca": None, "tls_root": None}
    own = settings.model_copy(update={"server": settings.server.model_copy(update=loopback)})
    async with AsyncExitStack() as stack:
        with quiet.status("starting an embedded server") if quiet.is_terminal else nullcontext():
            server = await stack.enter_async_context(running_server(own))
        channel = await stack.enter_async_context(channel_to(own, server.address))
        yield session_of(channel, server.address, embedded=True)


def session_of(channel: grpc.aio.Channel, address: str, *, embedded: bool) -> Session:
    """The services behind an open channel."""
    return Session(
        address=address,
        embedded=embedded,
        enrolment=cast("EnrolmentServiceAsyncStub", EnrolmentServiceStub(channel)),
        search=cast("SearchServiceAsyncStub", SearchServiceStub(channel)),
        operations=cast("OperationsServiceAsyncStub", OperationsServiceStub(channel)),
    )
